"""A worker's hold on a job: claimed by one guarded update, kept by a heartbeat, fenced by an epoch.

Only the claim increments ``epoch``. A worker that was too slow to be believed alive still has the old number, so nothing
it writes afterwards passes :meth:`SqlLease.check`. See "How to do distributed locking", Kleppmann, 2016 (fencing tokens).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import structlog
from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from fogline_server.db.database import Database
from fogline_server.jobs.runner import JobCanceled, LeaseLost
from fogline_server.jobs.tables import Job
from fogline_shared.states import JobState

log = structlog.get_logger()

# Progress closer together than this is kept in memory for the next write.
_WRITE_EVERY_S = 0.25


def claim(session: Session, job_id: str, *, owner: str, lease_s: float, now: datetime) -> Job | None:
    """Take a queued job; None when somebody else has it, it has ended, or it is to be canceled."""
    statement = (
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.QUEUED, Job.cancel_requested.is_(False))
        .values(
            state=JobState.RUNNING,
            epoch=Job.epoch + 1,
            attempts=Job.attempts + 1,
            lease_owner=owner,
            lease_until=now + timedelta(seconds=lease_s),
            started_at=func.coalesce(Job.started_at, now),
        )
        .returning(Job)
    )
    return session.scalars(statement, execution_options={"populate_existing": True}).one_or_none()


class SqlLease:
    """Implements :class:`fogline_server.jobs.runner.Lease` over the job's row."""

    def __init__(self, db: Database, *, job_id: str, epoch: int, lease_s: float, clock: Callable[[], datetime]) -> None:
        self.job_id = job_id
        self.epoch = epoch
        self._db = db
        self._lease_s = lease_s
        self._clock = clock
        self._lock = threading.Lock()
        self._progress: tuple[int, int, str] | None = None
        self._written_at = 0.0
        self._lost = False
        self._canceled = False
        self._held = select(Job.id).where(*self._mine()).with_for_update()

    def check(self, session: Session) -> None:
        # The row stays locked to the end of the transaction: asked once, it is known.
        if session.info.get(SqlLease) is self:
            return
        if session.execute(self._held).first() is None:
            raise LeaseLost(self.job_id)
        session.info[SqlLease] = self

    def progress(self, done: int, total: int, message: str = "") -> None:
        with self._lock:
            self._progress = (done, total, message[:400])
        if time.monotonic() - self._written_at >= _WRITE_EVERY_S or done >= total:
            self._extend()
        if self._lost:
            raise LeaseLost(self.job_id)
        if self._canceled:
            raise JobCanceled(self.job_id)

    @contextmanager
    def kept_alive(self) -> Iterator[None]:
        """Extend the lease in the background for as long as the block runs."""
        stop = threading.Event()
        thread = threading.Thread(target=self._beat, args=(stop,), name=f"lease-{self.job_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def _beat(self, stop: threading.Event) -> None:
        while not stop.wait(min(self._lease_s / 4, 2.0)):
            try:
                self._extend()
            except Exception as error:  # the database may be away for a while; the next beat tries again
                log.warning("lease_not_extended", job_id=self.job_id, error=str(error))
            if self._lost:
                return

    def _extend(self) -> None:
        """Write the progress of the last call and a new end of the lease; learn whether it was lost or canceled."""
        with self._lock:
            values = dict(zip(("done", "total", "message"), self._progress or (), strict=False))
            until = self._clock() + timedelta(seconds=self._lease_s)
            statement = update(Job).where(*self._mine()).values(lease_until=until, **values)
            with self._db.transaction() as session:
                row = session.execute(statement.returning(Job.cancel_requested)).one_or_none()
            self._written_at = time.monotonic()
            self._progress = None
            self._lost = row is None
            self._canceled = row is not None and row[0]

    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        return (Job.id == self.job_id, Job.epoch == self.epoch, Job.state == JobState.RUNNING)
