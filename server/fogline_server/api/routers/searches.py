"""/v1/compression-searches: which compressed form of a release's student is best within limits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.routers.releases import MethodLink
from fogline_server.api.schemas import Cursor, Id, Limit, Page, PathId, Resource
from fogline_server.api.services import Parts
from fogline_server.compression.chain import Chain
from fogline_server.compression.front import Limits
from fogline_server.db.base import utc_now
from fogline_server.jobs.tables import Job
from fogline_server.search import service
from fogline_server.search.model import MOST_CANDIDATES, SearchSpec
from fogline_server.search.tables import Search
from fogline_shared.states import JobState

router = APIRouter(prefix="/compression-searches", tags=["releases"], route_class=IdempotentRoute)


class SearchLimits(schemas.Request):
    """What the pick must keep; absent: what the release was built with. Drops are shares below the float student's."""

    max_bytes: int | None = Field(default=None, gt=0, le=2**53)
    max_p50_us: float | None = Field(default=None, gt=0, le=1e12)
    max_drop: float | None = Field(default=None, ge=0, le=1)
    max_worst_class_drop: float | None = Field(default=None, ge=0, le=1)


class NewSearch(schemas.Request):
    """``release``: id, name or alias. ``name``: of the release that the search ends with; absent: it only reports.

    ``chains``: tried instead of the default space. ``steps``: batches that each method which trains sees in all, unless
    its options say otherwise.
    """

    release: Id
    name: Id | None = None
    limits: SearchLimits = Field(default_factory=SearchLimits)
    chains: list[list[MethodLink]] = Field(default_factory=list, max_length=MOST_CANDIDATES)
    steps: int = 900
    seed: int = 0


class SearchSummary(Resource):
    """``done`` of ``total`` candidates at rungs; ``pick``: the variant taken, null while it works and if none is within the limits."""

    id: str
    release_id: str
    job_id: str
    state: JobState
    done: int
    total: int
    message: str
    pick: str | None
    error: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


class SearchView(SearchSummary):
    """``result``: candidates, front, pick and reasons (docs/search.md); null until it has ended well."""

    spec: dict[str, Any]
    result: dict[str, Any] | None


def _summary(search: Search, job: Job) -> dict[str, Any]:
    return {
        "id": search.id,
        "release_id": search.release_id,
        "job_id": job.id,
        "state": job.state,
        "done": job.done,
        "total": job.total,
        "message": job.message,
        "pick": (search.result or {}).get("pick"),
        "error": job.error,
        "created_at": search.created_at,
        "finished_at": job.finished_at,
    }


def _view(search: Search, job: Job) -> SearchView:
    return SearchView(**_summary(search, job), spec=search.spec, result=search.result)


@router.get("")
def list_searches(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[SearchSummary]:
    """Searches, newest first."""
    with services.db.read() as session:
        rows = service.list_searches(session, after=cursor, limit=limit + 1)
        return page_of(
            rows, limit, cursor=lambda row: row[0].id, show=lambda row: SearchSummary(**_summary(row[0], row[1]))
        )


@router.post("", status_code=201, responses=responses(404, 409), dependencies=[IDEMPOTENT])
def start_search(services: Parts, who: Caller, body: NewSearch) -> SearchView:
    """Try compressed forms of a READY release's student by successive halving. ``:cancel`` its job to end it."""
    spec = SearchSpec(
        name=body.name,
        limits=Limits(**body.limits.model_dump()),
        chains=tuple(Chain.from_json([link.model_dump() for link in chain]) for chain in body.chains),
        steps=body.steps,
        seed=body.seed,
    )
    with services.db.transaction() as session:
        search = service.start_search(session, body.release, spec, now=utc_now(), actor=who.actor)
        return _view(*service.get_search(session, search.id))


@router.get("/{search_id:id}", responses=responses(404))
def get_search(services: Parts, search_id: PathId) -> SearchView:
    """One search."""
    with services.db.read() as session:
        return _view(*service.get_search(session, search_id))
