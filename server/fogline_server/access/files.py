"""Secrets that are made on first start: files of mode 0600 that appear whole, once, also when two replicas start."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fogline_server.access.keys import KeyRing, PrintedKey

ADMIN_KEY_FILE = "admin.key"
_HMAC_FILE = "server.hmac"


def open_key_ring(key_dir: Path, configured: str) -> KeyRing:
    """The ring for the configured secret or, when that is empty, for one kept in ``key_dir``."""
    secret = configured or read_or_create(key_dir / _HMAC_FILE, lambda: secrets.token_urlsafe(48))
    return KeyRing(secret.encode())


def admin_key_in(key_dir: Path) -> PrintedKey | None:
    """The first start's admin key, when its file is there."""
    file = key_dir / ADMIN_KEY_FILE
    return PrintedKey.parse(file.read_text()) if file.exists() else None


def create_admin_key_in(key_dir: Path) -> PrintedKey:
    """The admin key in its file; whoever comes second gets the first one's."""
    return PrintedKey.parse(read_or_create(key_dir / ADMIN_KEY_FILE, lambda: str(PrintedKey.new())))


def read_or_create(file: Path, make: Callable[[], str]) -> str:
    """The file's line; written with ``make()`` if there is no such file yet."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = file.with_name(f".{file.name}.{secrets.token_hex(6)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "w") as out:
                out.write(f"{make()}\n")
                out.flush()
                os.fsync(out.fileno())
            # A link, unlike a rename, never replaces what another replica has just put there.
            with suppress(FileExistsError):
                file.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)
    return file.read_text().strip()
