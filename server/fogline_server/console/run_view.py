"""What the console's page of one run shows: updates that were not counted, and who is left out, each with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.devices.tables import Device
from fogline_server.training.service import get_run
from fogline_server.training.tables import Run, Task, Update
from fogline_server.training.why_not import WhyNot, why_not
from fogline_shared.states import DeviceState, UpdateVerdict

UPDATES_SHOWN = 100
DEVICES_SHOWN = 100


@dataclass(frozen=True, kw_only=True)
class UncountedUpdate:
    """A reply that no strategy saw."""

    device: str
    round: int
    kind: str
    verdict: str
    code: str
    reason: str
    received_at: datetime


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A device, and how it stands to the run."""

    device: Device
    why: WhyNot


@dataclass(frozen=True, kw_only=True)
class TakenUpdate:
    """An update that a step of an asynchronous run took, and how many steps before it the device had begun."""

    device: str
    staleness: int
    verdict: str | None


@dataclass(frozen=True, kw_only=True)
class RunPage:
    """Newest updates first; devices by name. ``devices_total``: how many there are beside those shown.

    ``steps``: of an asynchronous run, what each took, by its number, the latest first; empty for other runs.
    """

    now: datetime
    run: Run
    steps: Mapping[int, Sequence[TakenUpdate]]
    updates: Sequence[UncountedUpdate]
    standings: Sequence[Standing]
    devices_total: int


def run_page(session: Session, run_id: str, *, now: datetime) -> RunPage:
    """The page as of ``now``; raises NotFound ``run_not_found``."""
    run = get_run(session, run_id)
    devices = session.scalars(
        select(Device).where(Device.state != DeviceState.REVOKED).order_by(Device.name).limit(DEVICES_SHOWN + 1)
    ).all()
    return RunPage(
        now=now,
        run=run,
        steps=_steps(session, run_id),
        updates=_uncounted(session, run_id),
        standings=[
            Standing(device=device, why=why_not(session, device.id, run_id, now=now))
            for device in devices[:DEVICES_SHOWN]
        ],
        devices_total=len(devices),
    )


def _steps(session: Session, run_id: str) -> Mapping[int, Sequence[TakenUpdate]]:
    rows = session.execute(
        select(Device.name, Task.round, Update)
        .join(Task, Task.id == Update.task_id)
        .join(Device, Device.id == Task.device_id)
        .where(Task.run_id == run_id, Update.step.is_not(None))
        .order_by(Update.step.desc(), Update.received_at)
        .limit(UPDATES_SHOWN)
    )
    steps: dict[int, list[TakenUpdate]] = {}
    for name, version, update in rows:
        assert update.step is not None, "the query asks for it"
        taken = TakenUpdate(device=name, staleness=update.step - version, verdict=update.verdict)
        steps.setdefault(update.step, []).append(taken)
    return steps


def _uncounted(session: Session, run_id: str) -> list[UncountedUpdate]:
    rows = session.execute(
        select(Device.name, Task.round, Task.kind, Update)
        .join(Task, Task.id == Update.task_id)
        .join(Device, Device.id == Task.device_id)
        .where(Task.run_id == run_id, Update.verdict.is_not(None), Update.verdict != UpdateVerdict.ACCEPTED)
        .order_by(Update.received_at.desc(), Update.task_id)
        .limit(UPDATES_SHOWN)
    )
    return [
        UncountedUpdate(
            device=name,
            round=number,
            kind=kind,
            verdict=str(update.verdict),
            code=update.code,
            reason=update.reason,
            received_at=update.received_at,
        )
        for name, number, kind, update in rows
    ]
