"""Keep the online signatures alive, and say in time that the offline ones end. Safe to repeat, anywhere."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.database import Database
from fogline_server.trust import publish, store
from fogline_server.trust.keys import OnlineKeys
from fogline_server.trust.model import ROOT, TARGETS

log = structlog.get_logger()

# A ceremony needs people, so they are told in time, and again.
_TOLD_BEFORE = timedelta(days=30)
_TOLD_EVERY = timedelta(days=7)


def tick(db: Database, keys: OnlineKeys, *, now: datetime) -> list[str]:
    """Sign anew what is past half of its life; return the roles."""
    with db.read() as session:
        ending = _ending(session, now=now)
        due = publish.due(session, now=now)
    if ending:
        with db.transaction() as session:
            for role in ending:
                events.record(session, "trust.ends_soon", "trust", role)
        log.warning("offline signatures end soon: sign again, or devices install nothing new", roles=ending)
    if not due:
        return []
    with db.transaction() as session:
        return publish.renew(session, keys, now=now)


def _ending(session: Session, *, now: datetime) -> list[str]:
    """The offline roles that end soon, unless that was told lately."""
    found = []
    for role in (ROOT, TARGETS):
        row = store.newest(session, role)
        if row is None or row.expires_at - now > _TOLD_BEFORE:
            continue
        told = events.latest_events(session, kind="trust.ends_soon", subject_id=role, limit=1)
        if not told or now - told[0].at > _TOLD_EVERY:
            found.append(role)
    return found
