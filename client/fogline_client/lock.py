"""One agent a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from fogline_client import durable
from fogline_shared.errors import Conflict


@contextlib.contextmanager
def only_agent(lock: Path) -> Iterator[None]:
    """Hold the folder for this process; raises Conflict ``already_running``. The kernel frees it however we die."""
    with durable.full_disk_named(lock):
        try:
            file = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            # A disk that Linux has remounted after a fault. Predicting needs none; the folder can be locked too.
            file = os.open(lock if lock.exists() else lock.parent, os.O_RDONLY)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict("already_running", f"another agent runs in {lock.parent}") from error
        yield
    finally:
        os.close(file)
