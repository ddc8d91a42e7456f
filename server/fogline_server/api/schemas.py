"""What request and response models share. Text that a database or UTF-8 cannot hold is refused here, once."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Path, Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field
from starlette.convertors import Convertor, register_url_convertor

T = TypeVar("T")

_MAX_DEPTH = 20
_MAX_INT = 2**53


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("text must not contain NUL")
    return text


def _storable(value: Any, depth: int = 0) -> Any:
    """JSON that every database stores and every client reads back unchanged; raises ValueError."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested deeper than {_MAX_DEPTH}")
    if isinstance(value, str):
        value.encode()  # a lone surrogate raises UnicodeEncodeError, a ValueError
        _no_nul(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("numbers must be finite")
    elif isinstance(value, int) and abs(value) > _MAX_INT:
        raise ValueError(f"whole numbers must not exceed {_MAX_INT}")
    elif isinstance(value, dict):
        for key, item in value.items():
            _storable(key, depth + 1)
            _storable(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _storable(item, depth + 1)
    return value


def _utc(moment: datetime) -> datetime:
    if not 1970 <= moment.year < 9000:  # near the ends of the calendar, another time zone has no such moment
        raise ValueError("a time is between the years 1970 and 9000")
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_utc)]
Text = Annotated[str, AfterValidator(_no_nul), Field(max_length=2000)]
Name = Annotated[str, AfterValidator(_no_nul), Field(min_length=1, max_length=80)]
# JSON numbers beyond 2**53 do not survive other JSON readers.
Whole = Annotated[int, Field(ge=-_MAX_INT, le=_MAX_INT)]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:=-]{0,62}$")]
Tags = Annotated[list[Tag], Field(max_length=50)]
JsonObject = Annotated[dict[str, Any], AfterValidator(_storable)]

# What ids look like, in paths, queries and bodies. A name that cannot exist is not found or invalid, never an error here.
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$"
Id = Annotated[str, Field(pattern=ID_PATTERN)]


class _Id(Convertor[str]):
    """``{job_id:id}`` in a route's path: nothing that looks like an action.

    So a wrong method on ``/jobs/job_1:cancel`` is a 405 of that action, not a question about a strange id.
    """

    regex = "[A-Za-z0-9][A-Za-z0-9_.-]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _Id())
PathId = Annotated[str, Path(pattern=ID_PATTERN)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Request(BaseModel):
    """Base of request bodies: an unknown field is a mistake, and is said to be one."""

    model_config = ConfigDict(extra="forbid", str_max_length=100_000, allow_inf_nan=False)


class Resource(BaseModel):
    """Base of response bodies; read from rows."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[T]):
    """A piece of a list. ``next_cursor`` continues it; null: this was the last piece."""

    items: list[T]
    next_cursor: str | None


Cursor = Annotated[str | None, Query(pattern=ID_PATTERN, description="next_cursor of the page before")]
Limit = Annotated[int, Query(ge=1, le=200, description="items a page")]
