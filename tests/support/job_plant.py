"""A small plant of the job engine: real workers that tests may kill, and the coordinator's ticks in a thread."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil
import worker_process
from parts import die_with_us, eventually
from sqlalchemy import func, select

from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.db.events import Event
from fogline_server.jobs import service
from fogline_server.jobs.tables import Job
from fogline_shared.errors import Unavailable

LEASE_S = 1.5


class Plant:
    """Use as a context manager. Without ``ticking`` the test runs a coordinator of its own."""

    def __init__(self, database_url: str, redis_url: str, folder: Path, *, ticking: bool = True) -> None:
        self._arguments = [database_url, redis_url, str(folder / "blobs"), str(LEASE_S)]
        self._log = folder / "worker.log"
        self.engine = worker_process.make_engine(database_url, redis_url, folder / "blobs", LEASE_S)
        self.db: Database = self.engine.db
        self.workers: list[subprocess.Popen[bytes]] = []
        self._stop = threading.Event()
        self._ticks = threading.Thread(target=self._tick if ticking else self._stop.wait)

    def __enter__(self) -> Self:
        self._ticks.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._ticks.join()
        for worker in self.workers:
            self.kill(worker)
        self.db.dispose()

    def start_worker(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, worker_process.__file__, *self._arguments]
        with self._log.open("ab") as log:
            worker = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_us,  # noqa: PLW1509
            )
        self.workers.append(worker)
        return worker

    def kill(self, worker: subprocess.Popen[bytes]) -> None:
        """SIGKILL a worker with its pool: the machine is gone."""
        with suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    def pool_process_of(self, job_id: str) -> psutil.Process:
        """The process that holds a job, once there is one."""
        owners: list[str | None] = []

        def held() -> bool:
            with self.db.read() as session:
                owners.append(service.get_job(session, job_id).lease_owner)
            return owners[-1] is not None

        eventually(held, 30)
        owner = owners[-1]
        assert owner is not None
        return psutil.Process(int(owner.rsplit(":", 1)[1]))

    def submit(self, seconds: float, *, kind: str = "nap", **options: object) -> str:
        with self.db.transaction() as session:
            job = service.submit(session, kind, {"seconds": seconds}, queue="compute", now=utc_now(), **options)
            return job.id

    def state(self, job_id: str) -> str:
        with self.db.read() as session:
            return service.get_job(session, job_id).state

    def states(self) -> Counter[str]:
        with self.db.read() as session:
            return Counter(dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).all()))

    def effects(self) -> Counter[str]:
        """How often each job had its effect."""
        with self.db.read() as session:
            return Counter(session.scalars(select(Event.subject_id).where(Event.kind == "nap.effect")))

    def until_all_succeeded(self, jobs: list[str], timeout_s: float = 40) -> None:
        eventually(lambda: self.states() == {"SUCCEEDED": len(jobs)}, timeout_s)
        assert self.effects() == Counter(jobs), "each job has exactly one effect"

    def _tick(self) -> None:
        while not self._stop.wait(0.1):
            with suppress(Unavailable):  # Redis was killed by the test
                self.engine.dispatch()
            self.engine.reconcile()
