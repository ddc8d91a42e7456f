"""Content-addressed files: parameters, artifacts, batch data. The name of a blob is its SHA-256.

A blob appears whole or not at all: it is written beside its place, flushed to disk, then renamed. Writing the same bytes
twice is one file. Readers of :meth:`BlobStore.path` may map it: a blob never changes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fogline_shared.errors import Corrupt, Exhausted, InvalidInput, NotFound

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A stored blob. ``size`` in bytes."""

    digest: str
    size: int


class BlobStore:
    """A folder of blobs, shared by the processes of one coordinator."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def put(self, buffers: Iterable[Buffer], *, expect: str = "", limit: int | None = None) -> Blob:
        """Store the concatenated buffers.

        Raises Corrupt ``digest_mismatch`` when ``expect`` is given and differs, Exhausted ``blob_too_large`` past
        ``limit`` bytes, Exhausted ``disk_full``. Nothing is left behind on an error.
        """
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
            digest = sha.hexdigest()
            if expect and digest != expect:
                raise Corrupt("digest_mismatch", f"the bytes hash to {digest}, not to {expect}", expected=expect)
            self._publish(Path(name), digest)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise Exhausted("disk_full", f"no space for a blob of at least {size} bytes") from error
            raise
        finally:
            Path(name).unlink(missing_ok=True)
        return Blob(digest=digest, size=size)

    def _publish(self, written: Path, digest: str) -> None:
        target = self._place(digest)
        target.parent.mkdir(exist_ok=True)
        written.rename(target)
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def path(self, digest: str) -> Path:
        """Where the blob lies; raises NotFound ``blob_not_found``, InvalidInput ``bad_digest``."""
        place = self._place(digest)
        if not place.exists():
            raise NotFound("blob_not_found", f"no blob {digest}", digest=digest)
        return place

    def exists(self, digest: str) -> bool:
        """Whether the blob is stored."""
        return self._place(digest).exists()

    def size(self, digest: str) -> int:
        """Length in bytes; raises like :meth:`path`."""
        return self.path(digest).stat().st_size

    def read(self, digest: str) -> bytes:
        """The whole blob, checked against its digest; raises Corrupt ``blob_damaged``."""
        data = self.path(digest).read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise Corrupt("blob_damaged", f"the stored bytes of {digest} have changed", digest=digest)
        return data

    def chunks(self, digest: str, offset: int = 0, *, chunk: int = 1 << 20) -> Iterator[bytes]:
        """The blob from ``offset`` in pieces of ``chunk`` bytes, unchecked: the receiver checks the digest."""
        with self.path(digest).open("rb") as file:
            file.seek(offset)
            while data := file.read(chunk):
                yield data

    def cool(self, digest: str) -> None:
        """Tell the system, where it can be told, that nobody will read the blob soon: its memory may serve others."""
        if hasattr(os, "posix_fadvise"):
            with self.path(digest).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def sweep(self, *, older_than_s: float) -> int:
        """Remove what killed writers left half written; return how many files. No writer takes ``older_than_s``."""
        oldest = time.time() - older_than_s
        swept = 0
        for path in self._incoming.iterdir():
            with suppress(FileNotFoundError):  # its writer has just published or removed it
                if path.stat().st_mtime < oldest:
                    path.unlink()
                    swept += 1
        return swept

    def _place(self, digest: str) -> Path:
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise InvalidInput("bad_digest", "a digest is 64 lower-case hexadecimal digits")
        return self._root / digest[:2] / digest
