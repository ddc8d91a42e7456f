"""/v1/releases/{release}/notes: what people wrote about a release."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.problems import responses
from fogline_server.api.schemas import PathId, Resource
from fogline_server.api.services import Parts
from fogline_server.registry.notes import LONGEST, add_note, notes_of
from fogline_server.registry.service import get_release

router = APIRouter(tags=["releases"], route_class=IdempotentRoute)


class NewNote(schemas.Request):
    text: Annotated[str, Field(min_length=1, max_length=LONGEST)]


class NoteView(Resource):
    """Notes are added and never changed; the release's seal does not cover them."""

    at: datetime
    actor: str
    text: str


class Notes(Resource):
    items: list[NoteView]


@router.get("/releases/{release:id}/notes", responses=responses(404))
def list_notes(services: Parts, release: PathId) -> Notes:
    """A release's notes, oldest first."""
    with services.db.read() as session:
        found = notes_of(session, get_release(session, release).id)
        return Notes(items=[NoteView.model_validate(note) for note in found])


@router.post("/releases/{release:id}/notes", status_code=201, responses=responses(404, 409), dependencies=[IDEMPOTENT])
def create_note(services: Parts, who: Caller, release: PathId, body: NewNote) -> NoteView:
    """Write a note on a release, in any state of it."""
    with services.db.transaction() as session:
        return NoteView.model_validate(add_note(session, release, body.text, actor=who.actor))
