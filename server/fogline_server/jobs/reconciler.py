"""What brings every job to its end whatever dies: dispatch of the outbox, expired leases, lost rings, cancellations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, and_, delete, or_, select, update
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.database import Database
from fogline_server.jobs import service
from fogline_server.jobs.runner import JobKind, LeaseLost
from fogline_server.jobs.tables import Job, Outbox
from fogline_shared.errors import Conflict, FoglineError
from fogline_shared.states import JOB, JobState

log = structlog.get_logger()

# Rows handled in one pass; the rest waits for the next one, so that a tick never runs long.
_BATCH = 200
# A lost ring is repeated after ring_again_s, then after twice that, up to this many doublings.
_MAX_DOUBLINGS = 6


def dispatch(db: Database, *, ring: Callable[[str, str, int], None], now: datetime) -> int:
    """See :meth:`fogline_server.jobs.engine.Engine.dispatch`. Rings first and deletes after: at least once."""
    with db.read() as session:
        due = select(Outbox.id, Job.id, Job.queue, Job.priority).join(Job, Job.id == Outbox.job_id)
        due = due.where(Outbox.due_at <= now).order_by(Job.priority.desc(), Outbox.id).limit(_BATCH)
        rows = session.execute(due).all()
    rung: list[tuple[int, str]] = []
    try:
        for outbox_id, job_id, queue, priority in rows:
            ring(job_id, queue, priority)
            rung.append((outbox_id, job_id))
    finally:
        if rung:
            _forget(db, rung, now=now)
    return len(rung)


def _forget(db: Database, rung: Sequence[tuple[int, str]], *, now: datetime) -> None:
    with db.transaction() as session:
        session.execute(delete(Outbox).where(Outbox.id.in_([outbox_id for outbox_id, _ in rung])))
        told = update(Job).where(Job.id.in_([job_id for _, job_id in rung]))
        session.execute(told.values(rings=Job.rings + 1, rung_at=now))


def reconcile(db: Database, *, kinds: Mapping[str, JobKind], ring_again_s: float, now: datetime) -> int:
    """See :meth:`fogline_server.jobs.engine.Engine.reconcile`.

    Each job is moved in a transaction of its own: one whose feature refuses does not hold up the others. The first such
    refusal is raised at the end.
    """
    orphaned = and_(Job.state == JobState.RUNNING, Job.lease_until < now)
    unwanted = and_(Job.state == JobState.QUEUED, Job.cancel_requested.is_(True))
    unheard = and_(Job.state == JobState.QUEUED, Job.rung_at < now - timedelta(seconds=ring_again_s))
    with db.read() as session:
        ids = session.scalars(select(Job.id).where(or_(orphaned, unwanted, unheard)).limit(_BATCH)).all()
    moved, refusal = 0, None
    for job_id in ids:
        try:
            with db.transaction() as session:
                moved += _move(
                    session,
                    job_id,
                    still=or_(orphaned, unwanted, unheard),
                    kinds=kinds,
                    ring_again_s=ring_again_s,
                    now=now,
                )
        except Exception as error:
            log.exception("job_not_reconciled", job_id=job_id)
            refusal = refusal or error
    if refusal is not None:
        raise refusal
    return moved


def _move(
    session: Session,
    job_id: str,
    *,
    still: ColumnElement[bool],
    kinds: Mapping[str, JobKind],
    ring_again_s: float,
    now: datetime,
) -> bool:
    # A row that another replica is moving is skipped: it is that replica's.
    query = select(Job).where(Job.id == job_id, still).with_for_update(skip_locked=True)
    job = session.scalars(query).one_or_none()
    if job is None:
        return False
    if job.cancel_requested:
        end(session, job, JobState.CANCELED, canceled_error(job.id), kinds=kinds, now=now)
    elif job.state == JobState.QUEUED:
        return _ring_again(session, job, ring_again_s=ring_again_s, now=now)
    elif job.attempts >= job.max_attempts:
        message = f"its worker died or fell silent {job.attempts} times"
        end(session, job, JobState.FAILED, FoglineError("attempts_exhausted", message), kinds=kinds, now=now)
    else:
        events.record(session, "job.lease_expired", "job", job.id, owner=job.lease_owner, attempt=job.attempts)
        job.message = f"attempt {job.attempts}: worker {job.lease_owner} fell silent"
        requeue(session, job, now=now)
    return True


def _ring_again(session: Session, job: Job, *, ring_again_s: float, now: datetime) -> bool:
    """Repeat a ring that nobody answered. The pause doubles: a long queue must not fill with copies."""
    assert job.rung_at is not None
    pause = timedelta(seconds=ring_again_s * 2 ** min(job.rings - 1, _MAX_DOUBLINGS))
    if job.rung_at > now - pause:
        return False
    waiting = session.scalars(select(Outbox.id).where(Outbox.job_id == job.id).limit(1)).first()
    if waiting is not None:
        return False
    service.enqueue(session, job, now=now)
    return True


def requeue(session: Session, job: Job, *, now: datetime, due_at: datetime | None = None) -> None:
    """Put a running job back, to be rung at ``due_at``. Its old worker's epoch no longer holds it."""
    job.state = JOB.check(JobState(job.state), JobState.QUEUED)
    job.lease_owner = None
    job.lease_until = None
    job.rings = 0
    job.rung_at = None
    service.enqueue(session, job, now=now, due_at=due_at)


def give_back(session: Session, job_id: str, *, epoch: int, now: datetime) -> None:
    """Undo a claim that came to nothing through no fault of the job's; raises LeaseLost if it is another's by now."""
    job = service.get_job(session, job_id, lock=True)
    if job.epoch != epoch or job.state not in {JobState.RUNNING, JobState.QUEUED}:
        raise LeaseLost(job_id)
    job.attempts -= 1
    events.record(session, "job.given_back", "job", job.id, owner=job.lease_owner)
    # QUEUED: its lease had run out before its worker found the database again.
    if job.state == JobState.RUNNING:
        requeue(session, job, now=now)


def end(
    session: Session,
    job: Job,
    state: JobState,
    error: FoglineError,
    *,
    kinds: Mapping[str, JobKind],
    now: datetime,
) -> None:
    """End a job as FAILED or CANCELED, and have its feature mark its own row in the same transaction."""
    job.state = JOB.check(JobState(job.state), state)
    job.error = {
        "code": error.code,
        "message": error.message,
        **({"detail": dict(error.detail)} if error.detail else {}),
    }
    job.finished_at = now
    job.lease_until = None
    kind = kinds.get(job.kind)
    if kind is not None and kind.on_failure is not None:
        kind.on_failure(session, job.id, error)
    verb = "canceled" if state == JobState.CANCELED else "failed"
    events.record(session, f"job.{verb}", "job", job.id, job_kind=job.kind, code=error.code, message=error.message)


def canceled_error(job_id: str) -> FoglineError:
    """What a feature is told when its job was canceled."""
    return Conflict("job_canceled", f"job {job_id} was canceled", job_id=job_id)
