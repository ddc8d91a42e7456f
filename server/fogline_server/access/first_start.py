"""The admin key that exists from the first start, so that somebody can come in at all."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from fogline_server.access import files, service
from fogline_server.access.keys import KeyRing, PrintedKey
from fogline_server.db.database import Database


def ensure_admin_key(db: Database, ring: KeyRing, *, key_dir: Path, configured: str, now: datetime) -> None:
    """Make the configured key, or one in ``key_dir/admin.key`` (mode 0600), an admin key. Safe to repeat.

    Without a configured key a file is written only while nobody can administer. The file comes before the row: a crash
    between the two is mended by the next start, and two replicas agree on one key.
    Raises InvalidInput ``malformed_api_key`` for a configured key of another form.
    """
    if configured:
        key, name = PrintedKey.parse(configured), "bootstrap"
    else:
        with db.read() as session:
            have_admin = service.has_admin(session)
        known = files.admin_key_in(key_dir)
        if known is None and have_admin:
            return
        key, name = known or files.create_admin_key_in(key_dir), "first-start"
    # On PostgreSQL another replica may add the same row between our look and our insert; then it is there.
    with suppress(IntegrityError), db.transaction() as session:
        service.ensure_key(session, ring, key, name=name, now=now)
