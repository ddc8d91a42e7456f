"""Keep the online signatures alive. Safe to repeat, anywhere."""

from __future__ import annotations

from datetime import datetime

from fogline_server.db.database import Database
from fogline_server.trust import publish
from fogline_server.trust.keys import OnlineKeys


def tick(db: Database, keys: OnlineKeys, *, now: datetime) -> list[str]:
    """Sign anew what is past half of its life; return the roles."""
    with db.read() as session:
        if not publish.due(session, now=now):
            return []
    with db.transaction() as session:
        return publish.renew(session, keys, now=now)
