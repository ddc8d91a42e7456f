"""What people write about a release, in any state of it: events, which are added and never changed. No part of the seal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.events import Event
from fogline_server.registry.service import get_release
from fogline_server.registry.tables import Release
from fogline_shared.errors import Conflict, InvalidInput

KIND = "release.noted"
LONGEST = 1000
MOST = 100


@dataclass(frozen=True, kw_only=True)
class Note:
    """``at``: UTC."""

    at: datetime
    actor: str
    text: str


def add_note(session: Session, reference: str, text: str, *, actor: str) -> Note:
    """Write one more note on a release, given by id, name or alias.

    Raises NotFound ``release_not_found``; InvalidInput ``invalid_note``; Conflict ``too_many_notes``.
    """
    text = text.strip()
    if not 1 <= len(text) <= LONGEST or not all(c.isprintable() or c in "\n\t" for c in text):
        message = f"a note is 1 to {LONGEST} printable characters, lines and tabs; got {len(text)}"
        raise InvalidInput("invalid_note", message, field="text")
    release = get_release(session, reference)
    # Locked, so that notes are counted one after the other.
    session.execute(select(Release.id).where(Release.id == release.id).with_for_update())
    written = select(func.count()).where(Event.subject_id == release.id, Event.kind == KIND)
    if (session.scalar(written) or 0) >= MOST:
        raise Conflict("too_many_notes", f"release {release.name!r} has {MOST} notes, the most there may be")
    events.record(session, KIND, "release", release.id, actor=actor, name=release.name, text=text)
    session.flush()
    return notes_of(session, release.id, last=1)[0]


def notes_of(session: Session, release_id: str, *, last: int = MOST) -> Sequence[Note]:
    """The last ones, oldest first."""
    found = events.latest_events(session, subject_type="release", subject_id=release_id, kind=KIND, limit=last)
    return [Note(at=event.at, actor=event.actor, text=str(event.data["text"])) for event in reversed(found)]
