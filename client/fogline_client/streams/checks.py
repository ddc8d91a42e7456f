"""Checks of what a pipeline's file says; each raises InvalidInput ``invalid_pipeline``, naming the field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fogline_shared.errors import InvalidInput


def one_of(field: str, value: object, known: Sequence[str]) -> None:
    """It is one of the words."""
    if value not in known:
        raise InvalidInput("invalid_pipeline", f"{field} is one of {', '.join(known)}; got {value!r}", field=field)


def flag(field: str, value: object) -> None:
    """It is true or false; in quotes, a "no" would be taken for a yes."""
    if not isinstance(value, bool):
        raise InvalidInput("invalid_pipeline", f"{field} is true or false, without quotes; got {value!r}", field=field)


def text(field: str, value: object) -> None:
    """It is a text with something in it, or a path."""
    if not isinstance(value, str | Path) or not str(value):
        raise InvalidInput("invalid_pipeline", f"{field} is a text, got {value!r}", field=field)
