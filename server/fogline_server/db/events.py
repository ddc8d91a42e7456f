"""The event log: what happened, to what, by whom. Written in the use case's own transaction; read by SSE and audit."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Index, Integer, String, func, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from fogline_server.db.base import Base, utc_now

SYSTEM = "system"


class Event(Base):
    __tablename__ = "events"
    __table_args__ = (Index("ix_events_subject", "subject_type", "subject_id"),)

    seq: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    actor: Mapped[str] = mapped_column(String(120))
    kind: Mapped[str] = mapped_column(String(80))
    subject_type: Mapped[str] = mapped_column(String(40))
    subject_id: Mapped[str] = mapped_column(String(60))
    data: Mapped[dict[str, Any]]


def record(
    session: Session, kind: str, subject_type: str, subject_id: str, *, actor: str = SYSTEM, **data: Any
) -> None:
    """Add one event (``rollout.stage_failed``, ``rollout``, id, facts) to the caller's transaction."""
    session.add(
        Event(at=utc_now(), actor=actor, kind=kind, subject_type=subject_type, subject_id=subject_id, data=data)
    )


def events_after(session: Session, seq: int, *, limit: int = 200) -> Sequence[Event]:
    """Events with a higher sequence number, oldest first."""
    return session.scalars(select(Event).where(Event.seq > seq).order_by(Event.seq).limit(limit)).all()


def latest_events(
    session: Session,
    *,
    subject_type: str | None = None,
    subject_id: str | None = None,
    kind: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> Sequence[Event]:
    """Events that match what is given, newest first; ``before`` is the number of the previous page's last event."""
    query = select(Event).order_by(Event.seq.desc()).limit(limit)
    if subject_type is not None:
        query = query.where(Event.subject_type == subject_type)
    if subject_id is not None:
        query = query.where(Event.subject_id == subject_id)
    if kind is not None:
        query = query.where(Event.kind == kind)
    if before is not None:
        query = query.where(Event.seq < before)
    return session.scalars(query).all()


def last_seq(session: Session) -> int:
    """The highest sequence number so far; 0 when nothing has happened."""
    return session.scalar(select(func.max(Event.seq))) or 0
