"""Batch inference's kinds of jobs. The bodies import pyarrow and ONNX Runtime, so they load when a job runs."""

from __future__ import annotations

from sqlalchemy import update
from sqlalchemy.orm import Session

from fogline_server.batch.service import QUEUE
from fogline_server.jobs.runner import JobContext, JobKind, Outcome
from fogline_server.jobs.tables import Job
from fogline_shared.errors import FoglineError
from fogline_shared.states import JobState


def _batch(ctx: JobContext) -> Outcome:
    from fogline_server.batch.runner import run_batch

    return run_batch(ctx)


def _shard(ctx: JobContext) -> Outcome:
    from fogline_server.batch.shard import run_shard

    return run_shard(ctx)


def _stop_shards(session: Session, job_id: str, _error: FoglineError) -> None:
    """A batch job that has ended wants no more of its shards."""
    still_open = Job.state.in_((JobState.QUEUED, JobState.RUNNING))
    session.execute(update(Job).where(Job.parent_id == job_id, still_open).values(cancel_requested=True))


KINDS = (
    JobKind(name="batch", queue=QUEUE, run=_batch, on_failure=_stop_shards),
    JobKind(name="batch_shard", queue=QUEUE, run=_shard),
)
