"""A folder on a disk that becomes read-only, as a process sees it: whatever would change it is refused with EROFS.

Mounting needs rights that a test does not have. The interpreter tells before it opens, renames, removes or binds anything, and
an exception there ends the attempt. SQLite asks the system itself, so its refusal is told as it would tell it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

_CHANGES = frozenset(
    {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate", "os.chmod"}
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def below(root: Path, *, once: Path) -> None:
    """From when the file ``once`` is there, for the rest of this process."""
    prefix = str(root)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in _CHANGES or (event == "open" and arguments[2] & _WRITES)
        path = (
            arguments[1] if event == "socket.bind" else arguments[0] if writes or event == "sqlite3.connect" else None
        )
        if path is None or not str(path).startswith(prefix) or not once.exists():
            return
        if event == "sqlite3.connect":
            raise sqlite3.OperationalError("attempt to write a readonly database")
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    sys.addaudithook(audit)
