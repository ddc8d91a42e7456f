"""Rows of a Parquet file by number, over any fsspec URL.

Parquet cannot be entered in the middle of a row group, so a reader keeps its place: a process that takes ascending
shards of one file decodes each row group once, however many shards it was cut into.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from fogline_shared.errors import Conflict, InvalidInput

# Rows decoded at once: as many as fit, within bounds.
READ_BYTES, MIN_ROWS, MAX_ROWS = 8 << 20, 16, 4096


class RowReader:
    """One open input. ``fingerprint`` changes when the file does."""

    def __init__(self, url: str) -> None:
        try:
            self._fs, self._path = fsspec.core.url_to_fs(url)
            self.fingerprint = str(self._fs.ukey(self._path))
            self._file = pq.ParquetFile(self._fs.open(self._path, "rb"))
        except FileNotFoundError as error:
            raise InvalidInput("input_not_found", f"there is no file {url!r}") from error
        except (OSError, ValueError, ImportError, pa.ArrowException) as error:
            raise InvalidInput("unreadable_input", f"{url!r} cannot be read as Parquet: {error}"[:400]) from error
        meta = self._file.metadata
        self.rows = int(meta.num_rows)
        self.schema = self._file.schema_arrow
        self._starts = [0, *accumulate(meta.row_group(i).num_rows for i in range(meta.num_row_groups))]
        self._columns: tuple[str, ...] = ()
        self._batches: Iterator[Any] = iter(())
        self._ahead: Any = None
        self._position: int | None = None

    def read(self, first: int, rows: int, columns: Sequence[str], *, row_bytes: int) -> Iterator[Any]:
        """Record batches that together hold exactly these rows; raises InvalidInput ``unreadable_input``."""
        try:
            self._seek(first, tuple(columns), max(MIN_ROWS, min(MAX_ROWS, READ_BYTES // max(1, row_bytes))))
            while rows:
                batch = self._take(rows)
                rows -= len(batch)
                yield batch
        except (OSError, ValueError, pa.ArrowException) as error:
            self._position = None
            raise InvalidInput("unreadable_input", f"the input cannot be read: {error}"[:400]) from error

    def _seek(self, first: int, columns: tuple[str, ...], chunk: int) -> None:
        group = bisect_right(self._starts, first) - 1
        here = self._position
        if here is None or columns != self._columns or not self._starts[group] <= here <= first:
            groups = range(group, len(self._starts) - 1)
            self._batches = self._file.iter_batches(chunk, row_groups=groups, columns=list(columns))
            self._columns, self._ahead, self._position = columns, None, self._starts[group]
        while (skip := first - (self._position or 0)) > 0:
            self._take(skip)

    def _take(self, limit: int) -> Any:
        """The next rows, at most ``limit``; the rest of the decoded batch waits."""
        batch = self._ahead if self._ahead is not None else next(self._batches, None)
        if batch is None:
            raise InvalidInput("unreadable_input", "the input ends before the rows its footer promises")
        self._ahead = batch.slice(limit) if len(batch) > limit else None
        taken = batch.slice(0, limit)
        self._position = (self._position or 0) + len(taken)
        return taken


_open = threading.local()


def reader_of(url: str, *, fingerprint: str = "") -> RowReader:
    """This thread's reader of ``url``, still at its place; raises Conflict ``input_changed`` for another fingerprint."""
    kept: RowReader | None = getattr(_open, "reader", None)
    if kept is None or _open.url != url or not fingerprint or kept.fingerprint != fingerprint:
        kept = RowReader(url)
        _open.url, _open.reader = url, kept
    if fingerprint and kept.fingerprint != fingerprint:
        raise Conflict("input_changed", f"{url!r} has changed since the job was planned")
    return kept
