"""/v1/enrollment-tokens: single-use rights to enrol."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated

from fastapi import APIRouter
from pydantic import Field

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.schemas import Cursor, Limit, Page, PathId, Resource, Tags
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.devices import service

# No Idempotency-Key here: an answer that holds a secret is never stored.
router = APIRouter(prefix="/enrollment-tokens", tags=["devices"])


class NewToken(schemas.Request):
    """``device_name`` reserves the token for one device; ``tags`` are given to it."""

    device_name: Annotated[str | None, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = None
    tags: Tags = Field(default_factory=list)
    ttl_s: Annotated[float, Field(gt=0, le=365 * 86_400)] = 3600.0


class TokenView(Resource):
    id: str
    device_name: str | None
    tags: list[str]
    expires_at: datetime
    used_at: datetime | None
    used_by: str | None
    created_at: datetime


class CreatedToken(TokenView):
    """``token`` is shown once: only its hash is kept."""

    token: str


@router.get("")
def list_enrollment_tokens(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[TokenView]:
    """Tokens, newest first, used ones too."""
    with services.db.read() as session:
        rows = service.list_tokens(session, after=cursor, limit=limit + 1)
        return page_of(rows, limit, cursor=lambda row: row.id, show=TokenView.model_validate)


@router.post("", status_code=201)
def create_enrollment_token(services: Parts, who: Caller, body: NewToken) -> CreatedToken:
    """Make a token. ``fogline-agent enroll TOKEN`` needs nothing else."""
    with services.db.transaction() as session:
        row, text = service.create_token(
            session,
            services.authority.ca_pem,
            enroll_target=f"{services.settings.advertised_host}:{services.settings.enroll_port}",
            device_name=body.device_name,
            tags=body.tags,
            ttl=timedelta(seconds=body.ttl_s),
            now=utc_now(),
            actor=who.actor,
        )
        session.flush()
        return CreatedToken(**TokenView.model_validate(row).model_dump(), token=text)


@router.delete("/{token_id:id}", status_code=204, responses=responses(404))
def delete_enrollment_token(services: Parts, who: Caller, token_id: PathId) -> None:
    """Withdraw a token. A device that enrolled with it stays."""
    with services.db.transaction() as session:
        service.delete_token(session, token_id, actor=who.actor)
