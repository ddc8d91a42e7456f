"""Drops telemetry nobody looks at any more, so that a fleet that measures for ever fits in a database that does not."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import delete, select

from fogline_server.db.database import Database
from fogline_server.telemetry.tables import Window

KEEP = timedelta(days=30)
# Rows of one transaction: SQLite has one writer, and nobody should wait long for it.
_BATCH = 2_000
# Batches of one tick: with one tick a minute enough for 30,000 devices that send a window every ten seconds.
_BATCHES = 100


def tick(db: Database, *, now: datetime) -> int:
    """Delete windows received longer than ``KEEP`` ago; return how many."""
    gone = 0
    for _ in range(_BATCHES):
        batch = _delete_batch(db, now=now)
        gone += batch
        if batch < _BATCH:
            break
    return gone


def _delete_batch(db: Database, *, now: datetime) -> int:
    # Ids grow in order of receipt: looking at the lowest is enough, and needs no index on the time.
    oldest = select(Window.id, Window.received_at).order_by(Window.id).limit(_BATCH)
    with db.read() as session:
        ids = [number for number, received_at in session.execute(oldest) if received_at < now - KEEP]
    if not ids:
        return 0
    with db.transaction() as session:
        session.execute(delete(Window).where(Window.id.in_(ids)))
    return len(ids)
