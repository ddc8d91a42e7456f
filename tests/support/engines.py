"""Job engines for tests: a list for a bell, a clock that is set by hand, kinds made from plain functions."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.jobs import service
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.jobs.engine import Engine
from fogline_server.jobs.runner import JobContext, JobKind, Outcome
from fogline_server.jobs.tables import Job


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Bench:
    """An engine, its clock, and the rings it made."""

    def __init__(self, db: Database, blobs: BlobStore, run: Callable[[JobContext], Outcome], **kind: object) -> None:
        self.db = db
        self.clock = Clock()
        self.rings: list[str] = []
        self.engine = Engine(
            db,
            blobs,
            Doorbell("redis://127.0.0.1:1/0"),
            kinds={"work": JobKind(name="work", queue="compute", run=run, **kind)},
            lease_s=10,
            ring=lambda job_id, _queue, _priority: self.rings.append(job_id),
            retry_base_s=1,
            ring_again_s=30,
            clock=self.clock,
        )

    def submit(self, **options: object) -> str:
        with self.db.transaction() as session:
            return service.submit(session, "work", {}, queue="compute", now=self.clock.now, **options).id

    def job(self, job_id: str) -> Job:
        with self.db.read() as session:
            return service.get_job(session, job_id)

    def cancel(self, job_id: str) -> None:
        with self.db.transaction() as session:
            service.cancel(session, job_id, now=self.clock.now)
