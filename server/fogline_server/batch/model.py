"""Values of offline batch inference. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from fogline_shared.errors import InvalidInput

MAX_URL = 2000


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """One batch job. ``input`` and ``output`` are paths or fsspec URLs of Parquet files.

    ``release_id`` may be an id, a name or an alias; an empty ``variant`` is the release's default. ``id_column`` is
    copied to the output. ``shard_rows=0`` sizes shards by measurement. Raises InvalidInput ``invalid_batch_spec``.
    """

    release_id: str
    input: str
    output: str
    variant: str = ""
    id_column: str = ""
    batch_size: int = 256
    shard_rows: int = 0

    def __post_init__(self) -> None:
        for name in ("input", "output"):
            value = getattr(self, name)
            if not value or len(value) > MAX_URL or "\0" in value:
                raise InvalidInput("invalid_batch_spec", f"{name} is a path or URL of at most {MAX_URL} characters")
        if self.input == self.output:
            raise InvalidInput("invalid_batch_spec", "input and output are the same file")
        if not 1 <= self.batch_size <= 65536:
            raise InvalidInput("invalid_batch_spec", "batch_size is between 1 and 65536")
        if not 0 <= self.shard_rows < 2**53:
            raise InvalidInput("invalid_batch_spec", "shard_rows is 0 (measured) or a positive number of rows")

    def as_json(self) -> dict[str, Any]:
        """For the job's row."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> BatchSpec:
        """Inverse of :meth:`as_json`; members of other names are ignored."""
        return cls(**{f.name: value[f.name] for f in fields(cls) if f.name in value})


@dataclass(frozen=True, kw_only=True)
class Slice:
    """A contiguous piece of the input: rows ``first_row`` to ``first_row + rows``."""

    first_row: int
    rows: int


def plan_shards(total_rows: int, shard_rows: int) -> list[Slice]:
    """Cut ``total_rows`` into slices of ``shard_rows``, the last one shorter; nothing for an empty input."""
    return [
        Slice(first_row=first, rows=min(shard_rows, total_rows - first)) for first in range(0, total_rows, shard_rows)
    ]
