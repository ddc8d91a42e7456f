"""What the trainer reads and writes in SQL. Every write is one transaction that first checks the lease.

A round's end — parameters, strategy state, verdicts, metrics, progress — is one transaction too: after a crash a round
has happened wholly or is still open with its cohort, its tasks and the replies so far.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.devices import service as devices
from fogline_server.devices.tables import Device
from fogline_server.jobs.runner import Lease
from fogline_server.training import attempts
from fogline_server.training.admission import Judgement
from fogline_server.training.asynchronous import buffer
from fogline_server.training.pacing import Pace, draw
from fogline_server.training.privacy import ledger
from fogline_server.training.spec import RunSpec
from fogline_server.training.statistics import Statistics
from fogline_server.training.tables import Round, Run, Task, Update
from fogline_shared.errors import Conflict, FoglineError
from fogline_shared.states import ROUND, RUN, RoundState, RunState, UpdateVerdict


def begin(session: Session, lease: Lease, run_id: str) -> Run:
    """The run, RUNNING from now on unless it is PAUSED; raises Conflict ``run_ended``."""
    lease.check(session)
    run = session.get_one(Run, run_id)
    if run.finished_at is not None:
        raise Conflict("run_ended", f"run {run_id} is {run.state}")
    if run.state == RunState.PENDING:
        run.state = RUN.check(RunState(run.state), RunState.RUNNING)
        events.record(session, "run.started", "run", run_id)
    return run


def wanted(run: Run, spec: RunSpec, number: int) -> devices.Wanted:
    """What a round of the run asks of devices. Round 0 counts their samples, the later ones know them."""
    counts = Statistics.from_json(run.statistics).samples if run.statistics and number else {}
    return devices.Wanted(
        recipe=spec.recipe,
        tags=spec.tags,
        exclude_tags=spec.exclude_tags,
        conditions=spec.eligibility,
        counts=counts if number else None,
    )


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """Who is asked, and at what pace; None: as the run's spec says."""

    devices: Sequence[Device]
    pace: Pace | None


def choose_cohort(
    session: Session, run_id: str, spec: RunSpec, number: int, *, attempt: int = 1, now: datetime
) -> Cohort | int:
    """The devices of a round, by name; or, when there are fewer than ``min_devices``, how many there are.

    Devices of an asynchronous run that are still at work are there, and are not asked: it may be that nobody is.
    """
    eligible = devices.eligible(session, wanted(session.get_one(Run, run_id), spec, number), now=now)
    if number and spec.rule().asynchronous:
        buffer.close_expired(session, run_id, now=now)
        busy = buffer.busy(session, run_id, now=now)
        free = [device for device in eligible if device.id not in busy]
        there = len(free) + len(busy)
        return there if there < spec.min_devices else _free_places(spec, number, free, len(busy))
    if len(eligible) < spec.min_devices:
        return len(eligible)
    # Ids are drawn anew when a device enrols: by its name it is the same device in the next fleet.
    ordered = sorted(eligible, key=lambda device: device.name)
    pace = attempts.pace(session, run_id, spec, now=now)
    count = attempts.to_ask(spec, pace, fleet=len(ordered))
    lot = f"{spec.seed}/{number}" if attempt == 1 else f"{spec.seed}/{number}/{attempt}"
    rests = attempts.resting(session, run_id, spec, fleet=len(ordered), asked=count)
    chosen = set(draw([device.id for device in ordered], count, lot=lot, rests=rests))
    return Cohort(devices=[device for device in ordered if device.id in chosen], pace=pace)


def _free_places(spec: RunSpec, number: int, free: Sequence[Device], busy: int) -> Cohort:
    ordered = sorted(free, key=lambda device: device.name)
    count = len(ordered) if spec.max_devices is None else max(0, spec.max_devices - busy)
    chosen = set(draw([device.id for device in ordered], count, lot=f"{spec.seed}/{number}"))
    return Cohort(devices=[device for device in ordered if device.id in chosen], pace=None)


def refill(session: Session, run_id: str, spec: RunSpec, number: int, *, now: datetime) -> dict[int, str]:
    """Add devices that the open step of an asynchronous run has not asked to its cohort: device ids by node id.

    None in a paused run, which finishes the step with the devices it has.
    """
    run, row = session.get_one(Run, run_id), session.get_one(Round, (run_id, number))
    if run.state == RunState.PAUSED:
        return {}
    buffer.close_expired(session, run_id, now=now)
    busy = buffer.busy(session, run_id, now=now)
    eligible = devices.eligible(session, wanted(run, spec, number), now=now)
    free = [device for device in eligible if device.id not in busy and device.id not in row.cohort]
    added = _free_places(spec, number, free, len(busy)).devices
    if added:
        row.cohort = [*row.cohort, *(device.id for device in added)]
    return {device.node_id: device.id for device in added}


def open_round(session: Session, run_id: str, number: int) -> Round | None:
    """The round, if it was opened before. Without a cohort it waits for one, after an attempt that failed."""
    return session.get(Round, (run_id, number))


def has_cohort(row: Round) -> bool:
    """Whether a round has been opened wholly; in an asynchronous run, with all at work, that may be with nobody to ask."""
    return bool(row.cohort) or not row.attempts


class RunPaused(Exception):
    """Raised where the next round of a paused run would be opened: its rounds so far are whole."""


def check_not_paused(session: Session, lease: Lease, run_id: str) -> None:
    """Raise RunPaused if somebody has paused the run. Call before opening a round, in the same transaction."""
    # The job's lock orders this against the request: a pause that was answered is seen here.
    lease.check(session)
    if session.scalar(select(Run.state).where(Run.id == run_id)) == RunState.PAUSED:
        raise RunPaused(run_id)


def start_round(session: Session, lease: Lease, run: Run, number: int, cohort: Cohort, *, now: datetime) -> Round:
    """Open a round, or try an open one again, with a cohort that no restart changes."""
    lease.check(session)
    row = open_round(session, run.id, number)
    if row is None:
        row = Round(run_id=run.id, number=number, state=RoundState.OPEN, params_in=run.params_digest, metrics={})
        row.attempts = []
        session.add(row)
    row.cohort = [device.id for device in cohort.devices]
    row.pace = None if cohort.pace is None else cohort.pace.as_json()
    row.started_at = now
    tried = attempts.number_of(row)
    events.record(session, "run.round_opened", "run", run.id, round=number, attempt=tried, devices=len(row.cohort))
    return row


def nodes_of(session: Session, cohort: Sequence[str]) -> dict[int, str]:
    """Device ids by Flower node id, in the cohort's order."""
    rows = session.execute(select(Device.id, Device.node_id).where(Device.id.in_(cohort)))
    nodes = dict(rows.all())
    return {nodes[device_id]: device_id for device_id in cohort}


@dataclass(frozen=True, kw_only=True)
class RoundEnd:
    """What a round came to. ``judgements`` by the kind of their task; ``params`` None: the round trained nothing.

    ``refusal``: why the gate does not let its model through; the old parameters and the strategy's old state stay.
    ``failure``: why its cohort has come to nothing; the round stays open for another.
    """

    judgements: Mapping[str, Sequence[Judgement]] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    params: str | None = None
    strategy_state: str | None = None
    statistics: Statistics | None = None
    refusal: Mapping[str, str] | None = None
    failure: FoglineError | None = None


def commit_round(session: Session, lease: Lease, run_id: str, number: int, end: RoundEnd, *, now: datetime) -> None:
    """Write the end of a round."""
    lease.check(session)
    row, run = session.get_one(Round, (run_id, number)), session.get_one(Run, run_id)
    if end.failure is not None:
        attempts.fail(session, row, end.failure, now=now)
        return
    refused = end.refusal is not None
    row.state = ROUND.check(RoundState(row.state), RoundState.REFUSED if refused else RoundState.COMMITTED)
    row.closed_at = now
    asynchronous = RunSpec.from_json(run.spec).rule().asynchronous
    verdicts = _write_verdicts(session, row, end.judgements, asynchronous=asynchronous)
    row.metrics = {
        # JSON knows neither NaN nor infinity, and a loss may be either.
        **{name: value for name, value in end.metrics.items() if value is not None and math.isfinite(value)},
        **{verdict.lower(): verdicts[verdict] for verdict in UpdateVerdict},
        "seconds": round((now - row.started_at).total_seconds(), 3),
    }
    if "train" in end.judgements:
        # Whether its model is kept or not: it was made of the devices' data.
        ledger.spend(session, run_id)
    if end.statistics is not None:
        run.statistics = end.statistics.as_json()
    if end.refusal is not None:
        row.error, run.rounds_done = dict(end.refusal), number
        events.record(session, "run.round_refused", "run", run_id, round=number, metrics=row.metrics, error=row.error)
        return
    if end.params is not None:
        row.params_out = run.params_digest = end.params
        run.strategy_state_digest = end.strategy_state
        run.rounds_done = number
    events.record(session, "run.round_committed", "run", run_id, round=number, metrics=row.metrics)


def _write_verdicts(
    session: Session, row: Round, judgements: Mapping[str, Sequence[Judgement]], *, asynchronous: bool
) -> Counter[str]:
    """Write what became of each reply; how many replies of the attempt there are of each verdict, over all kinds of task.

    An asynchronous step judges what it took from the buffer, whichever round asked for it.
    """
    query = select(Task.kind, Task.node_id, Update).join(Update, Update.task_id == Task.id)
    mine = and_(Task.round == row.number, Task.attempt == attempts.number_of(row))
    if asynchronous:
        mine = or_(and_(mine, Task.kind != buffer.TRAIN), Update.step == row.number)
    rows = session.execute(query.where(Task.run_id == row.run_id, mine)).tuples().all()
    updates = {(kind, node_id): update for kind, node_id, update in rows if update.verdict is None}
    for kind, judged in judgements.items():
        for judgement in judged:
            update = updates[kind, judgement.node_id]
            update.verdict = judgement.verdict
            update.code, update.reason = judgement.code[:100], judgement.reason[:2000]
    return Counter(str(update.verdict) for *_, update in rows)
