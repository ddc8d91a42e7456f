"""Write a batch job's output: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from fogline_server.blobs.store import BlobStore
from fogline_shared.errors import Corrupt, InvalidInput


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A finished shard: the blob and the rows it must hold."""

    digest: str
    first_row: int
    rows: int


class Output:
    """A Parquet file at an fsspec URL, written beside its place under ``mark`` and then renamed.

    Raises InvalidInput ``output_not_writable``.
    """

    def __init__(self, url: str, *, mark: str) -> None:
        self._url = url
        with _writing(url):
            self._fs, self._path = fsspec.core.url_to_fs(url)
        self._part = f"{self._path}.{mark}.part"

    def check(self) -> None:
        """Find out before the work, not after it, that the place cannot be written to."""
        with _writing(self._url):
            if self._fs.isdir(self._path):
                raise IsADirectoryError(f"{self._path} is a folder")
            self._fs.open(self._part, "wb").close()
        self.discard()

    def write(
        self, pieces: Iterable[Piece], blobs: BlobStore, schema: Any, *, before_publish: Callable[[], None]
    ) -> int:
        """Write all rows in order and publish; return how many have no label. ``before_publish`` may raise to stop it."""
        empty = 0
        try:
            with (
                _writing(self._url),
                self._fs.open(self._part, "wb") as file,
                pq.ParquetWriter(file, schema, compression="zstd") as writer,
            ):
                for piece in pieces:
                    table = read_piece(blobs, piece)
                    empty += table.column("label").null_count
                    writer.write_table(table)
            before_publish()
            with _writing(self._url):
                self._publish()
        finally:
            self.discard()
        return empty

    def discard(self) -> None:
        """Remove what is left of an unpublished file."""
        with suppress(OSError):
            self._fs.rm_file(self._part)

    def _publish(self) -> None:
        if not isinstance(self._fs, LocalFileSystem):
            self._fs.mv(self._part, self._path)  # an object store shows an object when it is complete
            return
        for path in (Path(self._part), Path(self._path).parent):
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
                if path.is_file():
                    path.replace(self._path)
            finally:
                os.close(handle)


@contextmanager
def _writing(url: str) -> Iterator[None]:
    """Turn the errors of any file system into ``output_not_writable``."""
    try:
        yield
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise InvalidInput("output_not_writable", f"{url!r} cannot be written: {error}"[:400]) from error


def read_piece(blobs: BlobStore, piece: Piece) -> Any:
    """The table of a shard; raises Corrupt ``shard_incomplete`` unless it holds exactly its rows in order."""
    table = pa.ipc.open_stream(blobs.read(piece.digest)).read_all()
    end = piece.first_row + piece.rows
    if not np.array_equal(table.column("row_index").to_numpy(), np.arange(piece.first_row, end)):
        raise Corrupt("shard_incomplete", f"blob {piece.digest} does not hold rows {piece.first_row} to {end}")
    return table
