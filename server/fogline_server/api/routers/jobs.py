"""/v1/jobs: heavy offline work."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.schemas import ID_PATTERN, Cursor, Id, Limit, Page, PathId, Resource, Text, Whole
from fogline_server.api.services import Parts
from fogline_server.batch import service as batch
from fogline_server.batch.model import BatchSpec
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


class NewBatch(schemas.Request):
    """Score a Parquet file.

    ``input`` and ``output`` are paths as the workers see them, below the data folder (to which relative ones belong) or
    a folder that the settings allow; or URLs that begin with a prefix that the settings allow.
    """

    kind: Literal["batch"]
    release: Id
    input: Text
    output: Text
    variant: Id | None = None
    id_column: Text = ""
    batch_size: Whole = 256
    shard_rows: Whole = 0


class ShardView(Resource):
    """A contiguous piece of a batch job's input."""

    number: int
    shard_job_id: str
    first_row: int
    rows: int
    output_digest: str | None
    finished_at: datetime | None


class Shards(Resource):
    items: list[ShardView]


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


@router.post("", status_code=201, responses=responses(404, 409), dependencies=[IDEMPOTENT])
def submit_job(services: Parts, who: Caller, body: NewBatch) -> JobView:
    """Submit offline work. Training and releases have routes of their own."""
    spec = BatchSpec(
        release_id=body.release,
        input=body.input,
        output=body.output,
        variant=body.variant or "",
        id_column=body.id_column,
        batch_size=body.batch_size,
        shard_rows=body.shard_rows,
    )
    with services.db.transaction() as session:
        job = batch.submit_batch(session, spec, places=services.places, now=utc_now(), actor=who.actor)
        session.flush()
        return show(job)


@router.get("/{job_id:id}/shards", responses=responses(404))
def list_shards(services: Parts, job_id: PathId) -> Shards:
    """The shards of a batch job, in order; none before it is planned."""
    with services.db.read() as session:
        service.get_job(session, job_id)
        return Shards(items=[ShardView.model_validate(row) for row in batch.shards_of(session, job_id)])


@router.get("/{job_id:id}", responses=responses(404))
def get_job(services: Parts, job_id: PathId) -> JobView:
    """One job."""
    with services.db.read() as session:
        return show(service.get_job(session, job_id))


@router.post("/{job_id:id}:cancel", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def cancel_job(services: Parts, who: Caller, job_id: PathId) -> JobView:
    """Ask for the end of a job and of its children. It ends when its worker next looks."""
    with services.db.transaction() as session:
        job = service.cancel(session, job_id, now=utc_now(), actor=who.actor)
        session.flush()
        return show(job)


@router.post("/{job_id:id}:retry", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def retry_job(services: Parts, who: Caller, job_id: PathId) -> JobView:
    """Queue a failed job again, with all its attempts.

    A job whose failure has ended its run or its release is refused: ``retry_cannot_help`` says what to do instead.
    """
    with services.db.transaction() as session:
        job = service.retry(session, job_id, kinds=services.kinds, now=utc_now(), actor=who.actor)
        session.flush()
        return show(job)
