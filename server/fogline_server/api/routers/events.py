"""/v1/events: what happened, as pages or as a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from sse_starlette import EventSourceResponse, ServerSentEvent

from fogline_server.api.pagination import page_of
from fogline_server.api.schemas import ID_PATTERN, Limit, Page, Resource
from fogline_server.api.services import Parts
from fogline_server.db import events
from fogline_server.db.database import Database
from fogline_server.db.events import Event

router = APIRouter(prefix="/events", tags=["events"])

_POLL_S = 0.5
# A sequence number is a four-byte integer in PostgreSQL.
_END = 2**31
# Numbers are given when a row is written, not when it is committed: a slow transaction's event appears late, below
# newer ones. The stream looks this far back each time and sends what it has not sent.
_OVERLAP = 100

Seq = Annotated[int | None, Query(ge=0, lt=_END, description="next_cursor of the page before")]
Word = Annotated[str | None, Query(pattern=ID_PATTERN)]


class EventView(Resource):
    seq: int
    at: datetime
    actor: str
    kind: str
    subject_type: str
    subject_id: str
    data: dict[str, Any]


@router.get(
    "",
    response_model=Page[EventView],
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def list_events(
    request: Request,
    services: Parts,
    subject_type: Word = None,
    subject_id: Word = None,
    kind: Word = None,
    cursor: Seq = None,
    limit: Limit = 50,
    last_event_id: Annotated[int | None, Header(ge=0, lt=_END)] = None,
) -> Any:
    """Events, newest first.

    With ``Accept: text/event-stream`` a stream of new events (id: ``seq``, data: the event) that goes on from
    ``Last-Event-ID``, or from now; the filters do not apply to it.
    """
    if "text/event-stream" in request.headers.get("accept", ""):
        # Known before the answer begins: who looks at the state once the stream is open misses nothing in between.
        start = await asyncio.to_thread(_newest, services.db) if last_event_id is None else last_event_id
        return EventSourceResponse(_stream(services.db, start), ping=15)

    def read() -> Page[EventView]:
        with services.db.read() as session:
            rows = events.latest_events(
                session, subject_type=subject_type, subject_id=subject_id, kind=kind, before=cursor, limit=limit + 1
            )
            return page_of(rows, limit, cursor=lambda row: str(row.seq), show=EventView.model_validate)

    return await asyncio.to_thread(read)


def _newest(db: Database) -> int:
    with db.read() as session:
        return events.last_seq(session)


async def _stream(db: Database, start: int) -> AsyncIterator[ServerSentEvent]:
    def read(after: int) -> list[Event]:
        with db.read() as session:
            return list(events.events_after(session, after, limit=1000))

    top, sent = start, deque[int](maxlen=2 * _OVERLAP)
    sent.extend(range(max(0, start - _OVERLAP), start + 1))
    while True:
        for event in await asyncio.to_thread(read, max(0, top - _OVERLAP)):
            if event.seq not in sent:
                sent.append(event.seq)
                top = max(top, event.seq)
                body = EventView.model_validate(event).model_dump_json()
                yield ServerSentEvent(id=str(event.seq), data=body)
        await asyncio.sleep(_POLL_S)
