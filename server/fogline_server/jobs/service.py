"""Use cases of jobs: submit, cancel, retry, look up. The engine does the work; these only write what is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.base import new_id
from fogline_server.db.events import SYSTEM
from fogline_server.jobs.runner import JobKind
from fogline_server.jobs.tables import Job, Outbox
from fogline_shared.errors import Conflict, FoglineError, NotFound
from fogline_shared.states import JOB, JobState

# Higher is more urgent.
MIN_PRIORITY, MAX_PRIORITY = 0, 9


def submit(
    session: Session,
    kind: str,
    spec: Mapping[str, Any],
    *,
    queue: str,
    now: datetime,
    priority: int = 0,
    dedupe_key: str | None = None,
    parent_id: str | None = None,
    max_attempts: int = 3,
    total: int = 0,
    actor: str = SYSTEM,
) -> Job:
    """Add a job and its outbox row to the caller's transaction; workers hear of it after the commit.

    A second submission with the same ``dedupe_key`` returns the first job, whatever its state is.
    """
    if dedupe_key is not None and (known := _by_dedupe_key(session, dedupe_key)) is not None:
        return known
    job = Job(
        id=new_id("job"),
        kind=kind,
        queue=queue,
        spec=dict(spec),
        state=JobState.QUEUED,
        priority=max(MIN_PRIORITY, min(priority, MAX_PRIORITY)),
        max_attempts=max_attempts,
        total=total,
        parent_id=parent_id,
        dedupe_key=dedupe_key,
        created_at=now,
    )
    try:
        with session.begin_nested():
            session.add(job)
    except IntegrityError:
        # Another transaction submitted the same key between our look and our insert.
        if dedupe_key is None or (known := _by_dedupe_key(session, dedupe_key)) is None:
            raise
        return known
    enqueue(session, job, now=now)
    events.record(session, "job.submitted", "job", job.id, actor=actor, job_kind=kind, queue=queue)
    return job


def enqueue(session: Session, job: Job, *, now: datetime, due_at: datetime | None = None) -> None:
    """Have the dispatcher ring the workers for a queued job, at once or at ``due_at``."""
    session.add(Outbox(job_id=job.id, queue=job.queue, created_at=now, due_at=due_at or now))


def cancel(session: Session, job_id: str, *, now: datetime, actor: str = SYSTEM) -> Job:
    """Ask for the end of a job and of its children; asking twice is asking once.

    The engine ends it: a queued job at its next pass, a running one when its runner next reports progress.
    Raises NotFound ``job_not_found``, Conflict ``illegal_transition`` for a job that has ended.
    """
    del now
    job = get_job(session, job_id, lock=True)
    JOB.check(JobState(job.state), JobState.CANCELED)
    if not job.cancel_requested:
        job.cancel_requested = True
        events.record(session, "job.cancel_requested", "job", job.id, actor=actor)
    open_states = (JobState.QUEUED, JobState.RUNNING)
    children = select(Job).where(Job.parent_id == job_id, Job.state.in_(open_states), Job.cancel_requested.is_(False))
    for child in session.scalars(children.with_for_update()):
        child.cancel_requested = True
    return job


def stop_children(session: Session, job_id: str, _error: FoglineError) -> None:
    """For kinds with children, when a job has failed or was canceled: it wants no more of them."""
    still_open = Job.state.in_((JobState.QUEUED, JobState.RUNNING))
    session.execute(update(Job).where(Job.parent_id == job_id, still_open).values(cancel_requested=True))


def retry(session: Session, job_id: str, *, kinds: Mapping[str, JobKind], now: datetime, actor: str = SYSTEM) -> Job:
    """Queue a failed job again, with all its attempts.

    Raises like :func:`cancel` for a job that has not failed, and Conflict ``retry_cannot_help`` for a kind whose
    failure has ended what the job was for.
    """
    job = get_job(session, job_id, lock=True)
    if job.state != JobState.FAILED:  # the table also lets a RUNNING job be queued: that is the reconciler's to do
        raise Conflict("illegal_transition", f"only a FAILED job is tried again, this one is {job.state}")
    kind = kinds.get(job.kind)
    if kind is not None and kind.instead_of_retry:
        raise Conflict("retry_cannot_help", f"a failed {job.kind} job stays failed: {kind.instead_of_retry}")
    job.state = JOB.check(JobState(job.state), JobState.QUEUED)
    job.attempts = 0
    job.error = None
    job.finished_at = None
    job.cancel_requested = False
    job.message = ""
    job.rings = 0
    job.rung_at = None
    enqueue(session, job, now=now)
    events.record(session, "job.retried", "job", job.id, actor=actor)
    return job


def get_job(session: Session, job_id: str, *, lock: bool = False) -> Job:
    """One job, locked against concurrent changes if asked; raises NotFound ``job_not_found``."""
    job = session.get(Job, job_id, with_for_update=lock, populate_existing=lock)
    if job is None:
        raise NotFound("job_not_found", f"no job {job_id}", job_id=job_id)
    return job


def list_jobs(
    session: Session,
    *,
    kind: str | None = None,
    state: JobState | None = None,
    parent_id: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Sequence[Job]:
    """Jobs, newest first, that match what is given. ``after`` is the id of the previous page's last job."""
    query = select(Job).order_by(Job.id.desc()).limit(limit)
    if kind is not None:
        query = query.where(Job.kind == kind)
    if state is not None:
        query = query.where(Job.state == state)
    if parent_id is not None:
        query = query.where(Job.parent_id == parent_id)
    if after is not None:
        query = query.where(Job.id < after)
    return session.scalars(query).all()


def _by_dedupe_key(session: Session, dedupe_key: str) -> Job | None:
    return session.scalars(select(Job).where(Job.dedupe_key == dedupe_key)).one_or_none()
