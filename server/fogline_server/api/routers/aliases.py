"""/v1/aliases: movable names on releases."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IdempotentRoute
from fogline_server.api.problems import responses
from fogline_server.api.schemas import Id, PathId, Resource
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.registry import service

router = APIRouter(tags=["releases"], route_class=IdempotentRoute)


class AliasView(Resource):
    name: str
    release_id: str
    moved_at: datetime


class Aliases(Resource):
    items: list[AliasView]


class AliasTarget(schemas.Request):
    """``release``: id, name or another alias."""

    release: Id


@router.get("/aliases")
def list_aliases(services: Parts) -> Aliases:
    """Every movable name and the release it is on."""
    with services.db.read() as session:
        return Aliases(items=[AliasView.model_validate(row) for row in service.list_aliases(session)])


@router.put("/aliases/{alias:id}", responses=responses(404, 409))
def set_alias(services: Parts, who: Caller, alias: PathId, body: AliasTarget) -> AliasView:
    """Move a name to a READY release, or make it."""
    with services.db.transaction() as session:
        row = service.set_alias(session, alias, body.release, now=utc_now(), actor=who.actor)
        session.flush()
        return AliasView.model_validate(row)
