"""Batch inference's kinds of jobs. The bodies import pyarrow and ONNX Runtime, so they load when a job runs."""

from __future__ import annotations

from functools import partial

from fogline_server.batch.places import Places
from fogline_server.batch.service import QUEUE
from fogline_server.jobs.runner import JobContext, JobKind, Outcome
from fogline_server.jobs.service import stop_children


def _batch(ctx: JobContext, places: Places) -> Outcome:
    from fogline_server.batch.runner import run_batch

    return run_batch(ctx, places)


def _shard(ctx: JobContext, places: Places) -> Outcome:
    from fogline_server.batch.shard import run_shard

    return run_shard(ctx, places)


def kinds(places: Places) -> tuple[JobKind, ...]:
    """The kinds, for workers that open files in ``places`` only."""
    return (
        JobKind(name="batch", queue=QUEUE, run=partial(_batch, places=places), on_failure=stop_children),
        JobKind(name="batch_shard", queue=QUEUE, run=partial(_shard, places=places)),
    )
