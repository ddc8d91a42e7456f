"""The cold tier: every blob, packed, on any file system that fsspec knows (a folder, s3://, gs://, memory:// …).

An object appears whole or not at all. Blobs with tensors are kept as a recipe of pieces, so that a tensor that is the same in
many releases is stored once. Whatever is read is compared with its digest.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from fogline_server.blobs import packed
from fogline_server.blobs.hot import flush_names
from fogline_server.blobs.pieces import Tensors, no_tensors, pieces
from fogline_shared.errors import Corrupt, Exhausted, FoglineError, InvalidInput, NotFound, Unavailable

T = TypeVar("T")

_BLOBS, _RECIPES, _CHUNKS = "blobs", "recipes", "chunks"
# They show an object when it is complete, or hold it in memory: no other name is needed while it is written.
_WHOLE_AT_ONCE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "memory", "oci", "oss"}
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, kw_only=True)
class Stored:
    """An object of the cold tier: its bytes at rest, and when it was written (seconds of Unix time; None: it is not told)."""

    size: int
    written_at: float | None


class ColdTier:
    """Blobs below a URL. Options of its file system come from fsspec's own configuration and environment.

    Every method raises Unavailable ``cold_unreachable`` when a request fails or takes longer than ``timeout_s``.
    """

    def __init__(self, url: str, *, timeout_s: float = 30.0, tensors: Tensors = no_tensors) -> None:
        """Raises InvalidInput ``invalid_setting`` for a URL that no installed file system reads."""
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except (ValueError, ImportError, OSError) as error:
            raise InvalidInput("invalid_setting", f"FOGLINE_COLD_URL: {error}") from error
        self._root = str(root).rstrip("/")
        self._timeout_s = timeout_s
        self._tensors = tensors
        protocol = self._fs.protocol
        protocols = {protocol} if isinstance(protocol, str) else set(protocol)
        self._local = isinstance(self._fs, LocalFileSystem)
        self._at_once = bool(protocols & _WHOLE_AT_ONCE)

    def put(self, digest: str, file: Path) -> None:
        """Store the bytes of a file; its pieces before what names them. Raises also Exhausted ``disk_full``."""
        if not file.stat().st_size:
            return self._write(self._place(_BLOBS, digest), packed.pack(b""))
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            # A mapping is read like bytes, a slice at a time.
            parts = pieces(mapped, self._tensors)  # type: ignore[arg-type]
            if len(parts) == 1:
                return self._write(self._place(_BLOBS, digest), packed.pack(mapped[:]))
            recipe = []
            for part in parts:
                data = mapped[part.start : part.start + part.length]
                name = hashlib.sha256(data).hexdigest()
                self._write_new(self._place(_CHUNKS, name), packed.pack(data, part.width))
                recipe.append([name, part.length])
        self._write(self._place(_RECIPES, digest), packed.pack(json.dumps(recipe).encode()))
        return None

    def fetch(self, digest: str) -> Iterator[bytes]:
        """The blob in pieces, unchecked; raises NotFound ``blob_not_found``, Corrupt ``blob_damaged`` for a lost piece."""
        recipe = self._recipe(digest)
        if recipe is None:
            yield packed.unpack(self._read(self._place(_BLOBS, digest), digest))
            return
        for name, _ in recipe:
            try:
                yield packed.unpack(self._read(self._place(_CHUNKS, name), name))
            except NotFound as error:
                raise Corrupt("blob_damaged", f"a piece of {digest} is lost: {name}", digest=digest) from error

    def size(self, digest: str) -> int:
        """Length in bytes; raises like :meth:`fetch`."""
        recipe = self._recipe(digest)
        if recipe is not None:
            return sum(length for _, length in recipe)
        place = self._place(_BLOBS, digest)
        return packed.length_of(self._read(place, digest, end=packed.HEAD_BYTES))

    def exists(self, digest: str) -> bool:
        """Whether the blob is stored."""
        names = [self._place(kind, digest) for kind in (_BLOBS, _RECIPES)]
        return self._call(lambda: any(self._fs.exists(name) for name in names))

    def stored(self, digest: str) -> Stored | None:
        """What is at rest of a blob; None: it is not there."""

        def look() -> Stored | None:
            self._fs.invalidate_cache()
            for kind in (_BLOBS, _RECIPES):
                with suppress(FileNotFoundError):
                    return _stored(self._fs.info(self._place(kind, digest)))
            return None

        return self._call(look)

    def listing(self) -> Mapping[str, Stored]:
        """Every blob by its digest. What a blob in pieces has in common with others is not part of its size."""
        return self._listed(_BLOBS) | self._listed(_RECIPES)

    def remove(self, digest: str) -> None:
        """Forget a blob; its pieces stay until :meth:`remove_chunks`."""
        for kind in (_BLOBS, _RECIPES):
            self._remove(self._place(kind, digest))

    def chunks(self) -> Mapping[str, Stored]:
        """Every piece."""
        return self._listed(_CHUNKS)

    def used_chunks(self, known: dict[str, list[str]]) -> set[str]:
        """The pieces that blobs are made of. ``known``: blobs whose pieces were read before; those read now are added."""
        used: set[str] = set()
        for digest in self._listed(_RECIPES):
            if digest not in known:
                known[digest] = [name for name, _ in self._recipe(digest) or ()]
            used.update(known[digest])
        return used

    def remove_chunk(self, name: str) -> None:
        """Forget a piece. Only while nobody writes: a writer leaves a piece that is there already as it is."""
        self._remove(self._place(_CHUNKS, name))

    def sweep(self, *, older_than_s: float) -> int:
        """Remove what killed writers left half written; return how many files."""
        oldest, swept = time.time() - older_than_s, 0
        for name, info in self._found("").items():
            written_at = _written_at(info)
            if name.endswith(".part") and written_at is not None and written_at < oldest:
                self._remove(name)
                swept += 1
        return swept

    def _recipe(self, digest: str) -> list[tuple[str, int]] | None:
        """Names and lengths of the blob's pieces; None: it is whole, or not there."""
        try:
            body = packed.unpack(self._read(self._place(_RECIPES, digest), digest))
        except NotFound:
            return None
        try:
            return [(str(name), int(length)) for name, length in json.loads(body)]
        except (ValueError, TypeError) as error:
            raise Corrupt("blob_damaged", f"the recipe of {digest} cannot be read", digest=digest) from error

    def _listed(self, kind: str) -> dict[str, Stored]:
        found = {}
        for path, info in self._found(kind).items():
            name = path.rsplit("/", 1)[-1]
            if len(name) == 64:
                found[name] = _stored(info)
        return found

    def _found(self, kind: str) -> Mapping[str, Mapping[str, Any]]:
        """Every object below, whole: from a listing with gaps the collector would conclude that a piece is not used."""
        root = f"{self._root}/{kind}".rstrip("/")

        def find() -> dict[str, Mapping[str, Any]]:
            # Listings are cached by some file systems; other processes write here too.
            self._fs.invalidate_cache()
            if self._at_once:
                return dict(self._fs.find(root, detail=True))
            # Found by walking folders, which leaves out what it cannot read, unless told.
            return dict(self._fs.find(root, detail=True, on_error="raise")) if self._fs.exists(root) else {}

        try:
            return self._call(find)
        except FileNotFoundError as error:
            raise Unavailable("cold_unreachable", "the cold tier changed while it was listed; try again") from error

    def _read(self, place: str, digest: str, end: int | None = None) -> bytes:
        try:
            return self._call(lambda: bytes(self._fs.cat_file(place, end=end)))
        except FileNotFoundError as error:
            raise NotFound("blob_not_found", f"no blob {digest}", digest=digest) from error

    def _write_new(self, place: str, data: bytes) -> None:
        """Write, unless it is there in the same length: the name says what it holds."""

        def there() -> bool:
            self._fs.invalidate_cache()
            with suppress(FileNotFoundError):
                return bool(self._fs.info(place)["size"] == len(data))
            return False

        if not self._call(there):
            self._write(place, data)

    def _write(self, place: str, data: bytes) -> None:
        write = self._write_local if self._local else self._write_far
        self._call(lambda: write(place, data), writing=True)

    def _write_far(self, place: str, data: bytes) -> None:
        if self._at_once:
            self._fs.pipe_file(place, data)
            return
        part = f"{place}.{secrets.token_hex(8)}.part"
        self._fs.makedirs(place.rsplit("/", 1)[0], exist_ok=True)
        self._fs.pipe_file(part, data)
        self._fs.mv(part, place)

    def _write_local(self, place: str, data: bytes) -> None:
        target = Path(place)
        part = target.with_name(f"{target.name}.{secrets.token_hex(8)}.part")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)
        # The folder's own name too: it may be new.
        for folder in (target.parent, target.parent.parent, Path(self._root)):
            flush_names(folder)

    def _remove(self, place: str) -> None:
        def remove() -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(place)

        self._call(remove)

    def _place(self, kind: str, digest: str) -> str:
        return f"{self._root}/{kind}/{digest[:2]}/{digest}"

    def _call(self, work: Callable[[], T], *, writing: bool = False) -> T:
        """Do one request. A file system that hangs is left to itself in a thread that nobody waits for."""
        answer: list[T] = []
        failure: list[BaseException] = []

        def run() -> None:
            try:
                if self._local and not Path(self._root).is_dir():
                    raise Unavailable("cold_unreachable", f"the folder of the cold tier is not there: {self._root}")
                answer.append(work())
            except BaseException as error:  # told to the caller below, whatever it is
                failure.append(error)

        thread = threading.Thread(target=run, name="cold tier", daemon=True)
        thread.start()
        thread.join(self._timeout_s)
        if answer:
            return answer[0]
        if not failure:
            raise Unavailable("cold_unreachable", f"the cold tier did not answer within {self._timeout_s:g} s")
        raise self._told(failure[0], writing=writing) from failure[0]

    @staticmethod
    def _told(error: BaseException, *, writing: bool) -> BaseException:
        if isinstance(error, FoglineError) or not isinstance(error, Exception):
            return error
        if isinstance(error, FileNotFoundError) and not writing:
            return error
        if isinstance(error, OSError) and error.errno in _FULL:
            return Exhausted("disk_full", "no space in the cold tier")
        # What a driver says may hold a URL with a password; its name tells enough, and the cause is in the log.
        return Unavailable("cold_unreachable", f"the cold tier does not answer: {type(error).__name__}")


def _stored(info: Mapping[str, Any]) -> Stored:
    return Stored(size=int(info.get("size") or 0), written_at=_written_at(info))


def _written_at(info: Mapping[str, Any]) -> float | None:
    """When an object was written, by whichever name its file system has for that."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
        if isinstance(value, str):
            with suppress(ValueError):
                return datetime.fromisoformat(value).timestamp()
    return None
