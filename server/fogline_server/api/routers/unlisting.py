"""/v1/releases/{release}:unlist and :relist: whether devices may install a release anew."""

from __future__ import annotations

from fastapi import APIRouter

from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.problems import responses
from fogline_server.api.routers.releases import ReleaseSummary
from fogline_server.api.schemas import PathId
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.rollouts import unlisting

router = APIRouter(tags=["releases"], route_class=IdempotentRoute)


@router.post("/releases/{release:id}:unlist", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def unlist_release(services: Parts, who: Caller, release: PathId) -> ReleaseSummary:
    """Withdraw a READY release: no device installs it anew. Refused while anything needs it."""
    with services.db.transaction() as session:
        row = unlisting.unlist(session, services.online_keys, release, now=utc_now(), actor=who.actor)
        return ReleaseSummary.model_validate(row)


@router.post("/releases/{release:id}:relist", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def relist_release(services: Parts, who: Caller, release: PathId) -> ReleaseSummary:
    """Let devices install a withdrawn release again."""
    with services.db.transaction() as session:
        row = unlisting.relist(session, services.online_keys, release, now=utc_now(), actor=who.actor)
        return ReleaseSummary.model_validate(row)
