"""Files that survive a power cut: written beside their place, flushed to disk, renamed, and the folder flushed.

Every function raises Exhausted ``disk_full`` when the disk (or a quota) has no room, ``disk_read_only`` when it may not be written,
and leaves the old file as it was.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fogline_shared.errors import Corrupt, Exhausted

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turn the operating system's ways to say "full" into Exhausted ``disk_full``, and a read-only disk into ``disk_read_only``."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise Exhausted("disk_full", f"no space left to write {path}", path=str(path)) from error
        if error.errno == errno.EROFS:
            text = f"the disk is mounted read-only, so {path} cannot be written"
            raise Exhausted("disk_read_only", text, path=str(path)) from error
        raise


def flush_path(path: Path) -> None:
    """Make a file, or the renames in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path, *, mode: int = 0o777) -> None:
    """Make a folder, and those above it, so that their names survive too; nothing if it is there."""
    if path.is_dir():
        return
    make_folder(path.parent, mode=mode)
    with full_disk_named(path):
        path.mkdir(mode=mode, exist_ok=True)
        flush_path(path.parent)


def write(path: Path, data: bytes, *, mode: int = 0o644, flush: bool = True) -> None:
    """Replace ``path`` by ``data``: after a crash it holds the old bytes or the new ones, never a mixture.

    Without ``flush`` that is so of a crash of the process; a power cut may leave anything.
    """
    temporary = path.with_name(path.name + ".new")
    with full_disk_named(path):
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                if flush:
                    os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException:
            with suppress(OSError):  # on a disk that may not be written: what went wrong before matters
                temporary.unlink(missing_ok=True)
            raise
        if flush:
            flush_path(path.parent)


def move(source: Path, target: Path) -> None:
    """Rename a file that is already on disk, durably; both on one file system."""
    with full_disk_named(target):
        source.rename(target)
        flush_path(target.parent)


def write_json(path: Path, value: Any, *, mode: int = 0o644, flush: bool = True) -> None:
    """:func:`write` of a value as JSON."""
    write(path, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n", mode=mode, flush=flush)


def read_json(path: Path, *, code: str) -> Any:
    """The value, or None when there is no such file; raises Corrupt ``code`` when it is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Corrupt(code, f"{path} cannot be read: {error}", path=str(path)) from error


def digest_of(path: Path) -> str:
    """SHA-256 of a file, lower-case hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
