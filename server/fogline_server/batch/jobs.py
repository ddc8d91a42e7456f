"""Batch inference's kinds of jobs. The bodies import pyarrow and ONNX Runtime, so they load when a job runs."""

from __future__ import annotations

from functools import partial

from sqlalchemy import update
from sqlalchemy.orm import Session

from fogline_server.batch.places import Places
from fogline_server.batch.service import QUEUE
from fogline_server.jobs.runner import JobContext, JobKind, Outcome
from fogline_server.jobs.tables import Job
from fogline_shared.errors import FoglineError
from fogline_shared.states import JobState


def _batch(ctx: JobContext, places: Places) -> Outcome:
    from fogline_server.batch.runner import run_batch

    return run_batch(ctx, places)


def _shard(ctx: JobContext, places: Places) -> Outcome:
    from fogline_server.batch.shard import run_shard

    return run_shard(ctx, places)


def _stop_shards(session: Session, job_id: str, _error: FoglineError) -> None:
    """A batch job that has ended wants no more of its shards."""
    still_open = Job.state.in_((JobState.QUEUED, JobState.RUNNING))
    session.execute(update(Job).where(Job.parent_id == job_id, still_open).values(cancel_requested=True))


def kinds(places: Places) -> tuple[JobKind, ...]:
    """The kinds, for workers that open files in ``places`` only."""
    return (
        JobKind(name="batch", queue=QUEUE, run=partial(_batch, places=places), on_failure=_stop_shards),
        JobKind(name="batch_shard", queue=QUEUE, run=partial(_shard, places=places)),
    )
