"""A real worker whose jobs are made for tests: ``python worker_process.py DATABASE_URL REDIS_URL BLOB_DIR LEASE_S``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from fogline_server.blobs.store import BlobStore
from fogline_server.db import events
from fogline_server.db.database import Database
from fogline_server.jobs.celery_app import QUEUES, add_run_job, make_celery, make_ring
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.jobs.engine import Engine
from fogline_server.jobs.runner import JobContext, JobKind, Outcome
from fogline_server.logs import configure_logs
from fogline_server.worker import run_worker


def nap(context: JobContext) -> Outcome:
    """Take ``spec["seconds"]`` in small steps; the effect is one event."""
    steps = max(1, round(context.spec["seconds"] / 0.05))
    for step in range(steps):
        context.lease.progress(step, steps)
        time.sleep(0.05)
    return Outcome(commit=lambda session: events.record(session, "nap.effect", "job", context.job_id))


def freeze(context: JobContext) -> Outcome:
    """Stop this process at the first attempt, between two transactions, until it gets a SIGCONT."""
    if context.attempt == 1:
        with context.lease._lock:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGSTOP)
    return nap(context)


KINDS = {name: JobKind(name=name, queue="compute", run=run) for name, run in (("nap", nap), ("freeze", freeze))}


def make_engine(database_url: str, redis_url: str, blob_dir: Path, lease_s: float) -> Engine:
    ring = make_ring(make_celery(redis_url))
    db, blobs, doorbell = Database(database_url), BlobStore(blob_dir), Doorbell(redis_url)
    return Engine(db, blobs, doorbell, kinds=KINDS, lease_s=lease_s, ring=ring, retry_base_s=0.1, ring_again_s=2)


if __name__ == "__main__":
    configure_logs("worker")
    database_url, redis_url, blob_dir, lease_s = sys.argv[1:]
    app = make_celery(redis_url)
    add_run_job(app, lambda: make_engine(database_url, redis_url, Path(blob_dir), float(lease_s)))
    run_worker(app, queues=QUEUES, concurrency=2)
