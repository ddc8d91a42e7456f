"""/v1/jobs: heavy offline work."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.schemas import ID_PATTERN, Cursor, Limit, Page, PathId, Resource
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.jobs import service
from fogline_server.jobs.tables import Job
from fogline_shared.states import JobState

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=IdempotentRoute)


class JobView(Resource):
    """Heavy offline work. ``done`` of ``total`` in units of its kind (rounds, rows, steps)."""

    id: str
    kind: str
    queue: str
    state: JobState
    spec: dict[str, Any]
    priority: int
    attempts: int
    max_attempts: int
    cancel_requested: bool
    done: int
    total: int
    eta_s: float | None = None
    message: str
    result: dict[str, Any] | None
    error: dict[str, Any] | None
    parent_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


def show(job: Job) -> JobView:
    """A job with the seconds it still needs, judged by its pace so far; null while that is unknown."""
    view = JobView.model_validate(job)
    if job.state == JobState.RUNNING and job.started_at is not None and 0 < job.done <= job.total:
        elapsed = max((utc_now() - job.started_at).total_seconds(), 0.0)
        view.eta_s = round(elapsed / job.done * (job.total - job.done), 1)
    return view


@router.get("")
def list_jobs(
    services: Parts,
    kind: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    state: JobState | None = None,
    parent_id: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[JobView]:
    """Jobs, newest first."""
    with services.db.read() as session:
        rows = service.list_jobs(session, kind=kind, state=state, parent_id=parent_id, after=cursor, limit=limit + 1)
        return page_of(rows, limit, cursor=lambda job: job.id, show=show)


@router.get("/{job_id}", responses=responses(404))
def get_job(services: Parts, job_id: PathId) -> JobView:
    """One job."""
    with services.db.read() as session:
        return show(service.get_job(session, job_id))


@router.post("/{job_id}:cancel", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def cancel_job(services: Parts, who: Caller, job_id: PathId) -> JobView:
    """Ask for the end of a job and of its children. It ends when its worker next looks."""
    with services.db.transaction() as session:
        job = service.cancel(session, job_id, now=utc_now(), actor=who.actor)
        session.flush()
        return show(job)


@router.post("/{job_id}:retry", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def retry_job(services: Parts, who: Caller, job_id: PathId) -> JobView:
    """Queue a failed job again, with all its attempts."""
    with services.db.transaction() as session:
        job = service.retry(session, job_id, now=utc_now(), actor=who.actor)
        session.flush()
        return show(job)
