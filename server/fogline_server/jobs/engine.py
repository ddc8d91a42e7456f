"""The job engine. SQL is the truth; whatever rings (Celery) may ring twice, late or never without harm.

The worker's half is :meth:`Engine.execute`, the coordinator's :meth:`Engine.dispatch` and :meth:`Engine.reconcile`.
All three are safe to run anywhere, any number of times, at once.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import stamina
import structlog
from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.db import events
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database, is_outage
from fogline_server.jobs import reconciler, service
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.jobs.lease import SqlLease, claim
from fogline_server.jobs.runner import JobCanceled, JobContext, JobKind, LeaseLost, Outcome
from fogline_server.jobs.tables import Job
from fogline_shared.errors import Conflict, ErrorKind, FoglineError
from fogline_shared.states import JOB, JobState

log = structlog.get_logger()

# job id, queue, priority. Raises Unavailable when the message could not be handed over.
Ring = Callable[[str, str, int], None]

# Errors that the same input will meet again: no second attempt.
_FINAL = frozenset({ErrorKind.INVALID, ErrorKind.NOT_FOUND, ErrorKind.CONFLICT, ErrorKind.CORRUPT})

# A worker waits so long for a database that went away; later it is a silent worker like any other.
_OUTAGE_S = 300.0


class Engine:
    """Runs jobs by kind. One a process, built after a fork.

    ``lease_s`` is how long a worker may be silent; clocks of coordinator and workers must agree to well below it.
    """

    def __init__(
        self,
        db: Database,
        blobs: BlobStore,
        doorbell: Doorbell,
        *,
        kinds: Mapping[str, JobKind],
        lease_s: float,
        ring: Ring,
        retry_base_s: float = 1.0,
        ring_again_s: float = 10.0,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.db = db
        self.blobs = blobs
        self.doorbell = doorbell
        self.kinds = kinds
        self.lease_s = lease_s
        self.ring = ring
        self.retry_base_s = retry_base_s
        self.ring_again_s = ring_again_s
        self.clock = clock

    def execute(self, job_id: str) -> JobState | None:
        """Run a job if it is there to be run; return the state it is in afterwards, None if it was not ours to end."""
        with self.db.transaction() as session:
            owner = f"{socket.gethostname()}:{os.getpid()}"
            job = claim(session, job_id, owner=owner, lease_s=self.lease_s, now=self.clock())
        if job is None:
            return None
        with structlog.contextvars.bound_contextvars(job_id=job.id, job_kind=job.kind):
            try:
                state = self._attempt(job)
            except LeaseLost:
                log.warning("job_lease_lost", attempt=job.attempts)
                return None
            log.info("job_attempt_ended", state=state, attempt=job.attempts)
            return state

    def dispatch(self) -> int:
        """Ring for every outbox row that is due, then delete it; return how many. Raises the ring's Unavailable."""
        return reconciler.dispatch(self.db, ring=self.ring, now=self.clock())

    def reconcile(self) -> int:
        """Take jobs from silent workers, end what is to be canceled, ring again for what nobody took; return how many."""
        return reconciler.reconcile(self.db, kinds=self.kinds, ring_again_s=self.ring_again_s, now=self.clock())

    def _attempt(self, job: Job) -> JobState:
        lease = SqlLease(self.db, job_id=job.id, epoch=job.epoch, lease_s=self.lease_s, clock=self.clock)
        with lease.kept_alive():
            try:
                return self._succeed(lease, self._run(job, lease))
            except LeaseLost:
                raise
            except JobCanceled:
                return self._end(lease, JobState.CANCELED, reconciler.canceled_error(job.id))
            except FoglineError as error:
                if error.kind in _FINAL:
                    log.info("job_failed", code=error.code, message=error.message)
                    return self._end(lease, JobState.FAILED, error)
                log.warning("job_attempt_failed", code=error.code, message=error.message)
                return self._again(lease, job, error)
            except Exception as error:  # a runner may fail in any way; the job must not
                if is_outage(error):
                    return self._outlast(job, error)
                log.exception("job_attempt_crashed")
                wrapped = FoglineError("job_crashed", f"{type(error).__name__}: {error}"[:400])
                return self._again(lease, job, wrapped)

    def _run(self, job: Job, lease: SqlLease) -> Outcome:
        kind = self.kinds.get(job.kind)
        if kind is None:
            raise Conflict("unknown_job_kind", f"this worker cannot run jobs of kind {job.kind!r}", kind_name=job.kind)
        return kind.run(
            JobContext(
                job_id=job.id,
                spec=job.spec,
                attempt=job.attempts,
                db=self.db,
                blobs=self.blobs,
                doorbell=self.doorbell,
                lease=lease,
                execute=self.execute,
            )
        )

    def _succeed(self, lease: SqlLease, outcome: Outcome) -> JobState:
        with self.db.transaction() as session:
            job = self._held(session, lease)
            outcome.commit(session)
            job.state = JOB.check(JobState(job.state), JobState.SUCCEEDED)
            job.result = dict(outcome.result)
            job.done = max(job.done, job.total)
            job.finished_at = self.clock()
            job.lease_until = None
            events.record(session, "job.succeeded", "job", job.id, job_kind=job.kind)
        return JobState.SUCCEEDED

    def _end(self, lease: SqlLease, state: JobState, error: FoglineError) -> JobState:
        with self.db.transaction() as session:
            reconciler.end(session, self._held(session, lease), state, error, kinds=self.kinds, now=self.clock())
        return state

    def _again(self, lease: SqlLease, claimed: Job, error: FoglineError) -> JobState:
        """Queue the job once more after a growing pause, or fail it when its attempts are used up."""
        if claimed.attempts >= claimed.max_attempts:
            return self._end(lease, JobState.FAILED, error)
        with self.db.transaction() as session:
            job = self._held(session, lease)
            now = self.clock()
            job.message = f"attempt {job.attempts} failed: {error}"[:400]
            events.record(session, "job.attempt_failed", "job", job.id, attempt=job.attempts, code=error.code)
            pause_s = min(60.0, self.retry_base_s * 2 ** (job.attempts - 1))
            reconciler.requeue(session, job, now=now, due_at=now + timedelta(seconds=pause_s))
        return JobState.QUEUED

    def _outlast(self, job: Job, error: Exception) -> JobState:
        """Wait for the database, then have the job done again: an outage is no attempt of the job's."""
        log.warning("job_lost_database", attempt=job.attempts, error=str(error)[:400])
        for attempt in stamina.retry_context(on=is_outage, attempts=None, timeout=_OUTAGE_S, wait_max=2.0):
            with attempt, self.db.transaction() as session:
                reconciler.give_back(session, job.id, epoch=job.epoch, now=self.clock())
        return JobState.QUEUED

    def _held(self, session: Session, lease: SqlLease) -> Job:
        lease.check(session)
        return service.get_job(session, lease.job_id, lock=True)
