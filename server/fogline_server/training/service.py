"""Use cases of runs. The trainer (a job) does the work; the gateway's side is :mod:`fogline_server.training.offers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.base import new_id
from fogline_server.db.events import SYSTEM
from fogline_server.devices.queries import device_classes
from fogline_server.jobs import service as jobs
from fogline_server.training.asynchronous import buffer
from fogline_server.training.privacy import ledger
from fogline_server.training.spec import RunSpec
from fogline_server.training.tables import Round, Run, Task, Update
from fogline_shared.errors import Conflict, InvalidInput, NotFound
from fogline_shared.recipe import load_recipe
from fogline_shared.states import ROUND, RUN, RoundState, RunState

QUEUE = "train"
# A trainer that dies continues at its round, so a long run may outlive many workers.
MAX_ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class UpdateView:
    """One device's reply, for people. ``verdict`` None: its round has not closed yet.

    ``step``: the round of an asynchronous run that took it; it began ``staleness`` steps before. None elsewhere.
    """

    task_id: str
    device_id: str
    round: int
    kind: str
    verdict: str | None
    code: str
    reason: str
    digest: str
    size: int
    duplicates: int
    metrics: dict[str, Any]
    received_at: datetime
    step: int | None
    staleness: int | None


def create_run(session: Session, spec: RunSpec, *, now: datetime, actor: str = SYSTEM) -> Run:
    """Add a run and its job to the caller's transaction.

    Raises InvalidInput ``unknown_recipe``, ``broken_recipe``, ``unknown_size``, for an ensemble ``no_transfer_set`` and
    ``unknown_device_class``; NotFound ``run_not_found`` and Conflict ``teacher_not_ready`` for ``distil_from``.
    """
    recipe = load_recipe(spec.recipe)
    spec = spec.resolved(recipe)
    if spec.distil_from is not None:
        _check_teacher(session, spec)
    ledger.check_devices(session, spec.privacy, recipe=spec.recipe, tags=spec.tags, exclude_tags=spec.exclude_tags)
    if spec.ensemble:
        spec.ensemble.check_classes(device_classes(session))
    run = Run(
        id=new_id("run"),
        recipe=spec.recipe,
        size=spec.size,
        state=RunState.PENDING,
        spec=spec.as_json(),
        rounds_total=spec.total_rounds,
        rounds_done=0,
        created_at=now,
    )
    session.add(run)
    session.flush()
    ledger.reserve(session, run.id, spec.privacy, spec.total_rounds)
    submit_stint(session, run, now=now, actor=actor)
    events.record(session, "run.created", "run", run.id, actor=actor, recipe=spec.recipe, size=spec.size)
    return run


def submit_stint(session: Session, run: Run, *, now: datetime, actor: str = SYSTEM) -> None:
    """A job that trains a run on from where its rows say it stands, in place of the one before, which has ended."""
    job = jobs.submit(
        session,
        "distil" if run.spec["distil_from"] else "train",
        {"run_id": run.id},
        queue=QUEUE,
        now=now,
        total=run.rounds_total,
        max_attempts=MAX_ATTEMPTS,
        actor=actor,
    )
    run.job_id = job.id


def _check_teacher(session: Session, spec: RunSpec) -> None:
    assert spec.distil_from is not None
    # Locked: from now on it is not extended.
    teacher = get_run(session, spec.distil_from, lock=True)
    if teacher.recipe != spec.recipe:
        raise InvalidInput(
            "invalid_run", f"distil_from is a run of recipe {teacher.recipe}, not of {spec.recipe}", field="distil_from"
        )
    if teacher.state != RunState.SUCCEEDED:
        raise Conflict("teacher_not_ready", f"run {teacher.id} is {teacher.state}; a teacher has SUCCEEDED")


def get_run(session: Session, run_id: str, *, lock: bool = False) -> Run:
    """One run, locked against concurrent changes if asked; raises NotFound ``run_not_found``."""
    run = session.get(Run, run_id, with_for_update=lock, populate_existing=lock)
    if run is None:
        raise NotFound("run_not_found", f"no run {run_id}", run_id=run_id)
    return run


def list_runs(
    session: Session,
    *,
    recipe: str | None = None,
    state: RunState | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Sequence[Run]:
    """Runs, newest first; ``after`` is the id of the last one seen."""
    query = select(Run).order_by(Run.id.desc()).limit(limit)
    if recipe is not None:
        query = query.where(Run.recipe == recipe)
    if state is not None:
        query = query.where(Run.state == state)
    if after is not None:
        query = query.where(Run.id < after)
    return session.scalars(query).all()


def rounds_of(session: Session, run_id: str) -> Sequence[Round]:
    """All rounds of a run so far, in order; round 0 gathered statistics. Raises NotFound ``run_not_found``."""
    get_run(session, run_id)
    return session.scalars(select(Round).where(Round.run_id == run_id).order_by(Round.number)).all()


def updates_of(
    session: Session, run_id: str, *, round_number: int | None = None, after: str | None = None, limit: int = 1000
) -> Sequence[UpdateView]:
    """Replies to a run's tasks by task id; ``after`` is the last one seen. Raises NotFound ``run_not_found``."""
    get_run(session, run_id)
    query = select(Update, Task).join(Task, Task.id == Update.task_id).where(Task.run_id == run_id)
    if round_number is not None:
        query = query.where(Task.round == round_number)
    if after is not None:
        query = query.where(Task.id > after)
    rows = session.execute(query.order_by(Task.id).limit(limit))
    return [_view(update, task) for update, task in rows]


def _view(update: Update, task: Task) -> UpdateView:
    metrics = update.records.get("metrics")
    values = metrics.get("values") if isinstance(metrics, dict) else None
    return UpdateView(
        task_id=task.id,
        device_id=task.device_id,
        round=task.round,
        kind=task.kind,
        verdict=update.verdict,
        code=update.code,
        reason=update.reason,
        digest=update.digest,
        size=update.size,
        duplicates=update.duplicates,
        metrics=values if isinstance(values, dict) else {},
        received_at=update.received_at,
        step=update.step,
        staleness=buffer.staleness_of(update.step, task.round),
    )


def end_run(session: Session, run_id: str, state: RunState, *, now: datetime, error: dict[str, Any] | None) -> None:
    """End a run that did not succeed: its open round is abandoned, its tasks are no longer offered."""
    run = get_run(session, run_id)
    run.state = RUN.check(RunState(run.state), state)
    run.error = error
    ledger.close(session, run_id)
    run.finished_at = now
    open_rounds = select(Round).where(Round.run_id == run_id, Round.state == RoundState.OPEN)
    for row in session.scalars(open_rounds):
        row.state = ROUND.check(RoundState(row.state), RoundState.ABANDONED)
        row.error = error
        row.closed_at = now
    session.execute(update(Task).where(Task.run_id == run_id, Task.closed.is_(False)).values(closed=True))
    events.record(session, f"run.{state.lower()}", "run", run_id, error=error)
