"""The kinds of job that training brings: ``train``, and ``distil``, which is training with a teacher at hand."""

from __future__ import annotations

import logging

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db.base import utc_now
from fogline_server.jobs.runner import JobContext, JobKind, Outcome
from fogline_server.training.service import MAX_ATTEMPTS, QUEUE, end_run
from fogline_server.training.tables import Run
from fogline_shared.errors import FoglineError
from fogline_shared.longevity import settle
from fogline_shared.states import RunState

# A few models of ordinary size: rounds need the same memory over and over.
_KEEP_BYTES = 128 << 20


def _train(context: JobContext) -> Outcome:
    # torch and flwr load here, in a worker, and never in the API's process.
    import torch

    from fogline_server.training.trainer import Trainer

    torch.set_num_threads(1)
    settle(keep_bytes=_KEEP_BYTES)
    # Flower tells each step of each round; the run's own events do that.
    logging.getLogger("flwr").setLevel(logging.WARNING)
    return Trainer(context).run()


def _end(session: Session, job_id: str, error: FoglineError) -> None:
    """The job has failed or was canceled for good: so has its run."""
    run = session.scalars(select(Run).where(Run.job_id == job_id)).one_or_none()
    if run is None or run.finished_at is not None:
        return
    state = RunState.CANCELED if error.code == "job_canceled" else RunState.FAILED
    end_run(session, run.id, state, now=utc_now(), error={"code": error.code, "message": error.message})


KINDS = tuple(
    JobKind(
        name=name,
        queue=QUEUE,
        run=_train,
        on_failure=_end,
        max_attempts=MAX_ATTEMPTS,
        instead_of_retry="its run has FAILED; start another run (init_from: the parameters this one reached)",
    )
    for name in ("train", "distil")
)
