"""Content-addressed files: parameters, artifacts, batch data. The name of a blob is its SHA-256.

A blob appears whole or not at all: it is written beside its place, flushed to disk, then renamed. Writing the same bytes
twice is one file. Readers of :meth:`BlobStore.path` may map it: a blob never changes.

With a cold tier every blob is there before it is acknowledged; the folder is then a cache that may be bounded.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from fogline_server.blobs.hot import SPARE_S, Held, HotBound, flush_names, held
from fogline_shared.errors import Corrupt, Exhausted, FoglineError, InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    from fogline_server.blobs.cold import ColdTier

Buffer = bytes | bytearray | memoryview
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOCK_WAIT_S = 30.0
_STRIPES = 16
_TRIES = 10


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A stored blob. ``size`` in bytes."""

    digest: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Freed:
    """What a collection removed, in blobs and bytes at rest."""

    blobs: int = 0
    hot_bytes: int = 0
    cold_bytes: int = 0

    def __add__(self, other: Freed) -> Freed:
        return Freed(
            blobs=self.blobs + other.blobs,
            hot_bytes=self.hot_bytes + other.hot_bytes,
            cold_bytes=self.cold_bytes + other.cold_bytes,
        )


class BlobStore:
    """A folder of blobs, shared by the processes of one coordinator, and the cold tier behind it, if there is one.

    Whatever looks into the cold tier raises Unavailable ``cold_unreachable`` when that does not answer.
    """

    def __init__(
        self, root: Path, *, cold: ColdTier | None = None, hot_bytes: int | None = None, spare_s: float = SPARE_S
    ) -> None:
        """``hot_bytes``: what the folder may hold; raises InvalidInput ``invalid_setting`` for a bound without a cold tier."""
        if hot_bytes is not None and cold is None:
            raise InvalidInput(
                "invalid_setting", "FOGLINE_HOT_BYTES needs FOGLINE_COLD_URL: what is evicted would be lost"
            )
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        self.cold = cold
        self._bound = HotBound(root, hot_bytes, self._safe, spare_s=spare_s) if hot_bytes is not None else None
        self._named: set[Path] = set()  # folders whose names are on the disk
        # Many who ask for the same blob at once bring it back once.
        self._bringing = [threading.Lock() for _ in range(_STRIPES)]

    def put(self, buffers: Iterable[Buffer], *, expect: str = "", limit: int | None = None) -> Blob:
        """Store the concatenated buffers, in both tiers.

        Raises Corrupt ``digest_mismatch`` when ``expect`` is given and differs, Exhausted ``blob_too_large`` past
        ``limit`` bytes, Exhausted ``disk_full``. Nothing is left behind on an error.
        """
        with self._written(buffers, limit) as (file, blob):
            if expect and blob.digest != expect:
                raise Corrupt("digest_mismatch", f"the bytes hash to {blob.digest}, not to {expect}", expected=expect)
            with self._locked(fcntl.LOCK_SH):
                if self.cold is not None:
                    self.cold.put(blob.digest, file)
                self._publish(file, blob.digest)
        if self._bound is not None:
            self._bound.added(self._place(blob.digest), blob.size)
        return blob

    @contextmanager
    def _written(self, buffers: Iterable[Buffer], limit: int | None) -> Iterator[tuple[Path, Blob]]:
        """A flushed file of the buffers, which is removed at the end unless it was renamed."""
        sha, size = hashlib.sha256(), 0
        handle, name = tempfile.mkstemp(dir=self._incoming)
        try:
            with os.fdopen(handle, "wb") as file:
                for buffer in buffers:
                    size += len(buffer)
                    if limit is not None and size > limit:
                        raise Exhausted("blob_too_large", f"more than the allowed {limit} bytes", limit=limit)
                    sha.update(buffer)
                    file.write(buffer)
                file.flush()
                os.fsync(file.fileno())
            yield Path(name), Blob(digest=sha.hexdigest(), size=size)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise Exhausted("disk_full", f"no space for a blob of at least {size} bytes") from error
            raise
        finally:
            Path(name).unlink(missing_ok=True)

    def _publish(self, written: Path, digest: str) -> None:
        target = self._place(digest)
        target.parent.mkdir(exist_ok=True)
        written.rename(target)
        flush_names(target.parent)
        # Its name too: it may be new, also if another process has made it.
        if target.parent not in self._named:
            flush_names(self._root)
            self._named.add(target.parent)

    def path(self, digest: str) -> Path:
        """Where the blob lies, brought back if need be; raises NotFound ``blob_not_found``, InvalidInput ``bad_digest``.

        It stays there for three quarters of a minute at least. A blob is checked when it is brought back: Corrupt ``blob_damaged``.
        """
        place = self._place(digest)
        if not (self._bound.touch(place) if self._bound is not None else os.access(place, os.F_OK)):
            self._bring(digest)
        return place

    def _bring(self, digest: str, *, instead: bool = False) -> None:
        """Copy a blob from the cold tier, checked; ``instead`` of a copy that is damaged."""
        if self.cold is None:
            raise NotFound("blob_not_found", f"no blob {digest}", digest=digest)
        with self._bringing[int(digest[0], 16) % _STRIPES]:
            if not instead and self._place(digest).exists():
                return
            with self._written(self.cold.fetch(digest), None) as (file, blob):
                if blob.digest != digest:
                    raise Corrupt("blob_damaged", f"the cold tier's bytes of {digest} have changed", digest=digest)
                self._publish(file, digest)
        if self._bound is not None:
            self._bound.added(self._place(blob.digest), blob.size)

    def prefetch(self, digests: Iterable[str]) -> int:
        """Bring back what will be needed soon; return how many came. What cannot be brought is left to its reader to be told."""
        brought = 0
        for digest in digests:
            if not self._place(digest).exists():
                try:
                    self._bring(digest)
                    brought += 1
                except Unavailable:  # the next would wait for it as long
                    break
                except FoglineError:
                    continue
        return brought

    def exists(self, digest: str) -> bool:
        """Whether the blob is stored."""
        return self._place(digest).exists() or (self.cold is not None and self.cold.exists(digest))

    def size(self, digest: str) -> int:
        """Length in bytes; raises like :meth:`path`."""
        if self.cold is not None:
            with suppress(FileNotFoundError):
                return self._place(digest).stat().st_size
            return self.cold.size(digest)
        return self.path(digest).stat().st_size

    def read(self, digest: str) -> bytes:
        """The whole blob, checked against its digest; raises like :meth:`path`, and Corrupt ``blob_damaged``.

        A damaged copy is replaced by the cold tier's.
        """
        with self._open(digest) as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != digest:
            self._replace(digest)
            with self._open(digest) as file:
                data = file.read()
        return data

    def chunks(self, digest: str, offset: int = 0, *, chunk: int = 1 << 20) -> Iterator[bytes]:
        """The blob from ``offset`` in pieces of ``chunk`` bytes. The receiver checks the digest; with a cold tier, so is it here.

        A damaged copy is then replaced for the next reader, and this one is told: Corrupt ``blob_damaged``.
        """
        sha = hashlib.sha256() if self.cold is not None and not offset else None
        with self._open(digest) as file:
            file.seek(offset)
            while data := file.read(chunk):
                if sha is not None:
                    sha.update(data)
                yield data
        if sha is not None and sha.hexdigest() != digest:
            self._replace(digest)
            raise Corrupt("blob_damaged", f"the stored bytes of {digest} had changed; ask again", digest=digest)

    def _open(self, digest: str) -> FileIO:
        for _ in range(_TRIES):
            try:
                # Without a buffer: it is read in pieces larger than one.
                return self.path(digest).open("rb", buffering=0)
            except FileNotFoundError:  # evicted between the two
                continue
        raise Unavailable(
            "storage_busy", f"the hot tier is too small: {digest} was evicted {_TRIES} times before it was read"
        )

    def _replace(self, digest: str) -> None:
        """Take the cold tier's copy instead of a damaged one; raises Corrupt ``blob_damaged`` where there is none."""
        if self.cold is None:
            raise Corrupt("blob_damaged", f"the stored bytes of {digest} have changed", digest=digest)
        try:
            self._bring(digest, instead=True)
        except NotFound as error:
            raise Corrupt("blob_damaged", f"the only copy of {digest} has changed", digest=digest) from error

    def cool(self, digest: str) -> None:
        """Tell the system, where it can be told, that nobody will read the blob soon: its memory may serve others."""
        if hasattr(os, "posix_fadvise"):
            with self.path(digest).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def sweep(self, *, older_than_s: float) -> int:
        """Remove what killed writers left half written; return how many files. No writer takes ``older_than_s``."""
        oldest = time.time() - older_than_s
        swept = 0 if self.cold is None else self.cold.sweep(older_than_s=older_than_s)
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):  # its writer has just published or removed it
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    swept += 1
        return swept

    def held(self) -> Mapping[str, Held]:
        """What the folder holds, by digest."""
        return {each.path.name: each for each in held(self._root)}

    def remove(self, digests: Collection[str], *, before: float, keep: Callable[[], Collection[str]]) -> Freed:
        """Remove those of ``digests`` that were written ``before`` (Unix time) and that ``keep()`` does not name.

        It is asked while no writer publishes: what is being written is named by a row, or is too young. Raises Unavailable
        ``storage_busy`` when writers leave no moment for that.
        """
        freed = Freed()
        with self._locked(fcntl.LOCK_EX):
            kept = keep()
            for digest in digests:
                if digest not in kept:
                    freed += self._remove(digest, before)
        return freed

    def _remove(self, digest: str, before: float) -> Freed:
        place, hot, cold = self._place(digest), 0, 0
        with suppress(FileNotFoundError):
            found = place.stat()
            if found.st_mtime > before:
                return Freed()
            hot = found.st_size
        if self.cold is not None and (there := self.cold.stored(digest)):
            if there.written_at is None or there.written_at > before:
                return Freed()
            self.cold.remove(digest)
            cold = there.size
        # The cold copy first: a hot one alone is found again, and is as little needed then.
        place.unlink(missing_ok=True)
        return Freed(blobs=1, hot_bytes=hot, cold_bytes=cold)

    def remove_unused_chunks(self, *, before: float) -> int:
        """Remove pieces of the cold tier written ``before`` that no blob is made of any more; return their bytes."""
        if self.cold is None:
            return 0
        known: dict[str, list[str]] = {}
        freed = 0
        chunks = self.cold.chunks()
        unused = set(chunks) - self.cold.used_chunks(known)
        if not unused:
            return 0
        with self._locked(fcntl.LOCK_EX):
            # A writer may have used a piece since; only its recipe is read while writers wait.
            for name in unused - self.cold.used_chunks(known):
                written_at = chunks[name].written_at
                if written_at is not None and written_at <= before:
                    self.cold.remove_chunk(name)
                    freed += chunks[name].size
        return freed

    def _safe(self, path: Path) -> bool:
        """Whether the cold tier has a blob that is to be evicted; one from before there was a cold tier is brought there."""
        assert self.cold is not None, "there is no bound without it"
        with suppress(FoglineError):
            if not self.cold.exists(path.name):
                self.cold.put(path.name, path)
            return True
        return False

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Writers share the folder; the collector has it to itself, also against other processes."""
        handle = os.open(self._root, os.O_RDONLY)
        try:
            give_up = time.monotonic() + _LOCK_WAIT_S
            while not _lock(handle, how):
                if time.monotonic() > give_up:
                    raise Unavailable("storage_busy", f"the blob store is in use since {_LOCK_WAIT_S:g} s; try again")
                time.sleep(0.01)
            yield
        finally:
            os.close(handle)  # which unlocks

    def _place(self, digest: str) -> Path:
        return _place_in(self._root, digest)


# Making a path takes longer than opening the file; what is read is mostly read again.
@lru_cache(4096)
def _place_in(root: Path, digest: str) -> Path:
    if _DIGEST.fullmatch(digest) is None:
        raise InvalidInput("bad_digest", "a digest is 64 lower-case hexadecimal digits")
    return root / digest[:2] / digest


def _lock(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
