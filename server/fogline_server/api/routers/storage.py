"""/v1/storage: what the blob store holds, and the removal of what nobody needs."""

from __future__ import annotations

import time

from fastapi import APIRouter, Depends
from pydantic import Field

from fogline_server.api import schemas
from fogline_server.api.auth import Caller, administer
from fogline_server.api.idempotent import IdempotentRoute
from fogline_server.api.schemas import Resource
from fogline_server.api.services import Parts
from fogline_server.storage import service

router = APIRouter(prefix="/storage", tags=["storage"], route_class=IdempotentRoute)


class ShareView(Resource):
    """Blobs of one kind: bytes at rest in each tier, and of them what no row needs."""

    kind: str
    blobs: int
    hot_bytes: int
    cold_bytes: int
    free_blobs: int
    free_hot_bytes: int
    free_cold_bytes: int


class StandingView(Resource):
    """``chunk_bytes``: pieces in the cold tier that blobs are made of; they are in no kind's bytes."""

    tiers: list[str]
    shares: list[ShareView]
    chunk_bytes: int


class CollectionRequest(schemas.Request):
    """``grace_s``: how long a blob is left alone after it was written; absent: as the coordinator is set."""

    dry_run: bool = False
    grace_s: float | None = Field(default=None, ge=3600, le=3.2e9)
    limit: int = Field(default=10_000, ge=1, le=1_000_000)


class CollectionView(Resource):
    """What was removed, or with ``dry_run`` would be. ``more``: the limit was reached, so that there is more to remove."""

    dry_run: bool
    blobs: int
    hot_bytes: int
    cold_bytes: int
    chunk_bytes: int
    more: bool


@router.get("")
def show_storage(services: Parts) -> StandingView:
    """Bytes by kind and tier, and what could be freed. It looks at every blob."""
    return StandingView.model_validate(service.standing(services.db, services.blobs))


@router.post(":collect", dependencies=[Depends(administer)])
def collect_storage(services: Parts, who: Caller, body: CollectionRequest) -> CollectionView:
    """Remove blobs that nothing needs. Twice does no harm."""
    done = service.collect(
        services.db,
        services.blobs,
        now=time.time(),
        grace_s=services.settings.collect_grace_s if body.grace_s is None else body.grace_s,
        dry_run=body.dry_run,
        limit=body.limit,
        actor=who.actor,
    )
    freed = done.freed
    return CollectionView(
        dry_run=done.dry_run,
        blobs=freed.blobs,
        hot_bytes=freed.hot_bytes,
        cold_bytes=freed.cold_bytes,
        chunk_bytes=done.chunk_bytes,
        more=done.more,
    )
