"""Answers kept for repetition: a POST that is sent twice under one Idempotency-Key acts once.

The key is reserved in a transaction of its own before the request acts; its answer is stored after. A second request
meanwhile is told to wait; a reservation whose process died is given up after :data:`ABANDONED`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fogline_server.access.tables import IdempotentRequest
from fogline_server.db.database import Database
from fogline_shared.errors import Conflict

ABANDONED = timedelta(minutes=2)
KEPT = timedelta(days=1)
_PENDING = 0


@dataclass(frozen=True, kw_only=True)
class StoredAnswer:
    """What the first request was told."""

    status: int
    body: dict[str, Any]


def reserve(db: Database, key: str, fingerprint: str, *, now: datetime) -> StoredAnswer | None:
    """Reserve ``key`` for one request (None: go on), or return the answer it already got.

    Raises Conflict ``idempotency_key_reused`` when the same key came with another request and
    ``request_in_progress`` while the first one is still being worked on.
    """
    try:
        with db.transaction() as session:
            return _reserve(session, key, fingerprint, now=now)
    except IntegrityError as error:  # two at once on PostgreSQL: the other one has it
        raise _in_progress() from error


def _reserve(session: Session, key: str, fingerprint: str, *, now: datetime) -> StoredAnswer | None:
    session.execute(delete(IdempotentRequest).where(IdempotentRequest.created_at < now - KEPT))
    row = session.get(IdempotentRequest, key)
    if row is not None and row.fingerprint != fingerprint:
        raise Conflict("idempotency_key_reused", "this Idempotency-Key was used for another request")
    if row is not None and row.status != _PENDING:
        return StoredAnswer(status=row.status, body=row.body)
    if row is not None and row.created_at > now - ABANDONED:
        raise _in_progress()
    if row is None:
        session.add(IdempotentRequest(key=key, fingerprint=fingerprint, status=_PENDING, body={}, created_at=now))
    else:
        row.created_at = now
    return None


def _in_progress() -> Conflict:
    return Conflict("request_in_progress", "the first request with this Idempotency-Key is still being worked on")


def store(db: Database, key: str, answer: StoredAnswer) -> None:
    """Keep the answer of a reserved key."""
    with db.transaction() as session:
        session.execute(
            update(IdempotentRequest).where(IdempotentRequest.key == key).values(status=answer.status, body=answer.body)
        )


def release(db: Database, key: str) -> None:
    """Give a reserved key back: the request failed, and a corrected or later one may use it."""
    with db.transaction() as session:
        session.execute(
            delete(IdempotentRequest).where(IdempotentRequest.key == key, IdempotentRequest.status == _PENDING)
        )
