"""Pause, resume, cancel, extend: what people ask of a run after it was created.

A run is trained in stints, a job each. Pausing ends the stint before its next round; resuming begins another, and so does
extending a run that had SUCCEEDED. Every request is one transaction over the run's row and its job's, locked in the order
in which the trainer locks them; the trainer looks before it opens a round and once more in the transaction that ends its
job. So whoever dies, and whatever comes in between, the rows say whether there is a round to train and a job to do it.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.events import SYSTEM
from fogline_server.jobs import service as jobs
from fogline_server.jobs.tables import Job
from fogline_server.training.asynchronous import buffer
from fogline_server.training.privacy import ledger
from fogline_server.training.service import end_run, get_run, submit_stint
from fogline_server.training.spec import RunSpec
from fogline_server.training.tables import Run
from fogline_shared.errors import Conflict
from fogline_shared.states import RUN, JobState, RunState


def pause_run(session: Session, run_id: str, *, now: datetime, actor: str = SYSTEM) -> Run:
    """Open no further round; the one that is open is finished and counts.

    Raises NotFound ``run_not_found``, Conflict ``illegal_transition`` for a run that is paused or has ended.
    """
    del now
    run, _ = _held(session, run_id)
    run.state = RUN.check(RunState(run.state), RunState.PAUSED)
    events.record(session, "run.paused", "run", run.id, actor=actor, rounds_done=run.rounds_done)
    return run


def resume_run(session: Session, run_id: str, *, now: datetime, actor: str = SYSTEM) -> Run:
    """Go on with a paused run; raises NotFound ``run_not_found``, Conflict ``illegal_transition``."""
    run, job = _held(session, run_id)
    if run.state != RunState.PAUSED:  # the table also lets a run that SUCCEEDED be extended
        raise Conflict("illegal_transition", f"only a PAUSED run is resumed, this one is {run.state}")
    run.state = RUN.check(RunState(run.state), RunState.RUNNING)
    events.record(session, "run.resumed", "run", run.id, actor=actor, rounds_done=run.rounds_done)
    _begin_stint(session, run, job, now=now, actor=actor)
    return run


def extend_run(session: Session, run_id: str, rounds: int, *, now: datetime, actor: str = SYSTEM) -> Run:
    """Add rounds to a run, also to one that has SUCCEEDED, which then goes on.

    Raises NotFound ``run_not_found``; InvalidInput ``invalid_run``; Conflict ``illegal_transition`` for a run that FAILED or
    was CANCELED, ``run_in_use`` for one that another run has learned from.
    """
    run, job = _held(session, run_id)
    _check_no_student(session, run)
    if run.state == RunState.SUCCEEDED:
        run.state = RUN.check(RunState(run.state), RunState.RUNNING)
        run.finished_at = None
    elif run.finished_at is not None:
        raise Conflict("illegal_transition", f"a {run.state} run is not extended; start another (init_from)")
    spec = RunSpec.from_json(run.spec).extended(rounds)
    ledger.extend(session, run.id, rounds)
    run.spec, run.rounds_total = spec.as_json(), spec.total_rounds
    events.record(session, "run.extended", "run", run.id, actor=actor, rounds=rounds, rounds_total=run.rounds_total)
    if run.state != RunState.PAUSED:
        _begin_stint(session, run, job, now=now, actor=actor)
    return run


def cancel_run(session: Session, run_id: str, *, now: datetime, actor: str = SYSTEM) -> Run:
    """Ask for the end of a run; it is CANCELED when its job is, or at once if it has none at work.

    Raises NotFound ``run_not_found``, Conflict ``illegal_transition`` for a run that has ended.
    """
    run, job = _held(session, run_id)
    RUN.check(RunState(run.state), RunState.CANCELED)
    events.record(session, "run.cancel_requested", "run", run.id, actor=actor)
    if _at_work(job):
        jobs.cancel(session, job.id, now=now, actor=actor)
    else:
        end_run(session, run.id, RunState.CANCELED, now=now, error=_canceled(job))
    return run


def end_stint(session: Session, run_id: str, *, now: datetime) -> None:
    """In the transaction that ends a run's job: the run has SUCCEEDED, rests, or is to be trained on by another job."""
    run, job = _held(session, run_id)
    unfinished = run.rounds_done < run.rounds_total
    if job.cancel_requested and (unfinished or run.state == RunState.PAUSED):
        # The trainer has seen the pause first.
        end_run(session, run.id, RunState.CANCELED, now=now, error=_canceled(job))
    elif run.state == RunState.PAUSED:
        return
    elif unfinished:
        submit_stint(session, run, now=now)
    else:
        run.state = RUN.check(RunState(run.state), RunState.SUCCEEDED)
        run.finished_at = now
        buffer.close(session, run.id)
        events.record(session, "run.succeeded", "run", run.id, params_digest=run.params_digest)


def _held(session: Session, run_id: str) -> tuple[Run, Job]:
    """A run and its job, both locked; raises NotFound ``run_not_found``."""
    run = get_run(session, run_id)
    while True:
        assert run.job_id is not None, "create_run sets it in the transaction that makes the row"
        job = jobs.get_job(session, run.job_id, lock=True)
        run = get_run(session, run_id, lock=True)
        if run.job_id == job.id:
            return run, job


def _at_work(job: Job) -> bool:
    return job.state in {JobState.QUEUED, JobState.RUNNING}


def _begin_stint(session: Session, run: Run, job: Job, *, now: datetime, actor: str) -> None:
    """Unless there is a job that goes on by itself: it looks at the run's row again before it ends."""
    if not _at_work(job):
        submit_stint(session, run, now=now, actor=actor)


def _check_no_student(session: Session, run: Run) -> None:
    """Who learned from this run says so with its id: its parameters may not change under that."""
    others = select(Run).where(Run.recipe == run.recipe, Run.state.not_in((RunState.FAILED, RunState.CANCELED)))
    for other in session.scalars(others):
        if other.spec.get("distil_from") == run.id:
            raise Conflict("run_in_use", f"run {other.id} learns from run {run.id}: start another run (init_from)")


def _canceled(job: Job) -> dict[str, str]:
    return {"code": "job_canceled", "message": f"job {job.id} was canceled"}
