"""/v1/api-keys, for admins."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from fogline_server.access import service
from fogline_server.access.keys import Role
from fogline_server.access.service import Principal
from fogline_server.api import schemas
from fogline_server.api.auth import administer, ring_of
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.schemas import Cursor, Limit, Name, Page, PathId, Resource
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now

# No Idempotency-Key here: an answer that holds a secret is never stored.
router = APIRouter(prefix="/api-keys", tags=["api keys"], dependencies=[Depends(administer)], responses=responses(403))
Admin = Annotated[Principal, Depends(administer)]


class NewApiKey(schemas.Request):
    name: Name
    role: Role = Role.VIEWER


class ApiKeyView(Resource):
    id: str
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None


class CreatedApiKey(ApiKeyView):
    """``key`` is shown once: only its HMAC is kept."""

    key: str


@router.get("")
def list_api_keys(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[ApiKeyView]:
    """Keys, newest first, revoked ones too."""
    with services.db.read() as session:
        rows = service.list_keys(session, after=cursor, limit=limit + 1)
        return page_of(rows, limit, cursor=lambda row: row.id, show=ApiKeyView.model_validate)


@router.post("", status_code=201)
def create_api_key(request: Request, services: Parts, who: Admin, body: NewApiKey) -> CreatedApiKey:
    """Make a key."""
    with services.db.transaction() as session:
        row, key = service.create_key(
            session, ring_of(request), name=body.name, role=body.role, now=utc_now(), actor=who.actor
        )
        return CreatedApiKey(**ApiKeyView.model_validate(row).model_dump(), key=str(key))


@router.get("/{key_id:id}", responses=responses(404))
def get_api_key(services: Parts, key_id: PathId) -> ApiKeyView:
    """One key."""
    with services.db.read() as session:
        return ApiKeyView.model_validate(service.get_key(session, key_id))


@router.post("/{key_id:id}:revoke", responses=responses(404, 409))
def revoke_api_key(services: Parts, who: Admin, key_id: PathId) -> ApiKeyView:
    """End a key at once. The last admin key cannot be revoked."""
    with services.db.transaction() as session:
        return ApiKeyView.model_validate(service.revoke_key(session, key_id, now=utc_now(), actor=who.actor))
