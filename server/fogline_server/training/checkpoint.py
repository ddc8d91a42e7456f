"""What the trainer reads and writes in SQL. Every write is one transaction that first checks the lease.

A round's end — parameters, strategy state, verdicts, metrics, progress — is one transaction too: after a crash a round
has happened wholly or is still open with its cohort, its tasks and the replies so far.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.devices import service as devices
from fogline_server.devices.tables import Device
from fogline_server.jobs.runner import Lease
from fogline_server.training.admission import Judgement
from fogline_server.training.spec import RunSpec
from fogline_server.training.statistics import Statistics
from fogline_server.training.tables import Round, Run, Task, Update
from fogline_shared.errors import Conflict
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


def choose_cohort(session: Session, run_id: str, spec: RunSpec, number: int, *, now: datetime) -> list[Device] | int:
    """The devices of a round, by name; or, when there are fewer than ``min_devices``, how many there are."""
    eligible = devices.eligible(session, wanted(session.get_one(Run, run_id), spec, number), now=now)
    if len(eligible) < spec.min_devices:
        return len(eligible)
    # Ids are drawn anew when a device enrols: by its name it is the same device in the next fleet.
    ordered = sorted(eligible, key=lambda device: device.name)
    if spec.max_devices is not None and len(ordered) > spec.max_devices:
        # Not a secret: the same run over the same fleet should pick the same devices.
        ordered = random.Random(f"{spec.seed}/{number}").sample(ordered, spec.max_devices)  # noqa: S311
    return ordered


def open_round(session: Session, run_id: str, number: int) -> Round | None:
    """The round, if it was opened before."""
    return session.get(Round, (run_id, number))


class RunPaused(Exception):
    """Raised where the next round of a paused run would be opened: its rounds so far are whole."""


def check_not_paused(session: Session, lease: Lease, run_id: str) -> None:
    """Raise RunPaused if somebody has paused the run. Call before opening a round, in the same transaction."""
    # The job's lock orders this against the request: a pause that was answered is seen here.
    lease.check(session)
    if session.scalar(select(Run.state).where(Run.id == run_id)) == RunState.PAUSED:
        raise RunPaused(run_id)


def start_round(
    session: Session, lease: Lease, run: Run, number: int, cohort: Sequence[Device], *, now: datetime
) -> None:
    """Open a round with a cohort that no restart changes."""
    lease.check(session)
    row = Round(
        run_id=run.id,
        number=number,
        state=RoundState.OPEN,
        cohort=[device.id for device in cohort],
        params_in=run.params_digest,
        metrics={},
        started_at=now,
    )
    session.add(row)
    events.record(session, "run.round_opened", "run", run.id, round=number, devices=len(cohort))


def nodes_of(session: Session, cohort: Sequence[str]) -> dict[int, str]:
    """Device ids by Flower node id, in the cohort's order."""
    rows = session.execute(select(Device.id, Device.node_id).where(Device.id.in_(cohort)))
    nodes = dict(rows.all())
    return {nodes[device_id]: device_id for device_id in cohort}


@dataclass(frozen=True, kw_only=True)
class RoundEnd:
    """What a round came to. ``judgements`` by the kind of their task; ``params`` None: the round trained nothing."""

    judgements: Mapping[str, Sequence[Judgement]]
    metrics: Mapping[str, Any]
    params: str | None = None
    strategy_state: str | None = None
    statistics: Statistics | None = None


def commit_round(session: Session, lease: Lease, run_id: str, number: int, end: RoundEnd, *, now: datetime) -> None:
    """Write the end of a round."""
    lease.check(session)
    row, run = session.get_one(Round, (run_id, number)), session.get_one(Run, run_id)
    row.state = ROUND.check(RoundState(row.state), RoundState.COMMITTED)
    row.closed_at = now
    verdicts = _write_verdicts(session, run_id, number, end.judgements)
    row.metrics = {
        **{name: value for name, value in end.metrics.items() if value is not None},
        **{verdict.lower(): verdicts[verdict] for verdict in UpdateVerdict},
        "seconds": round((now - row.started_at).total_seconds(), 3),
    }
    if end.statistics is not None:
        run.statistics = end.statistics.as_json()
    if end.params is not None:
        row.params_out = run.params_digest = end.params
        run.strategy_state_digest = end.strategy_state
        run.rounds_done = number
    events.record(session, "run.round_committed", "run", run_id, round=number, metrics=row.metrics)


def _write_verdicts(
    session: Session, run_id: str, number: int, judgements: Mapping[str, Sequence[Judgement]]
) -> Counter[str]:
    """Write what became of each reply; how many replies of the round there are of each verdict, over all kinds of task."""
    query = select(Task.kind, Task.node_id, Update).join(Update, Update.task_id == Task.id)
    rows = session.execute(query.where(Task.run_id == run_id, Task.round == number))
    updates = {(kind, node_id): update for kind, node_id, update in rows}
    for kind, judged in judgements.items():
        for judgement in judged:
            update = updates[kind, judgement.node_id]
            update.verdict = judgement.verdict
            update.code, update.reason = judgement.code[:100], judgement.reason[:2000]
    return Counter(str(update.verdict) for update in updates.values())
