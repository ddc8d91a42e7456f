"""What the database has to tell connected devices, asked for many devices at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.devices.service import require_admitted
from fogline_server.devices.tables import Device
from fogline_server.rollouts import desired
from fogline_server.rollouts.tables import Desired
from fogline_server.training import offers
from fogline_server.training.tables import Task
from fogline_shared.errors import FoglineError
from fogline_shared.protocol import DesiredState, TaskOffer
from fogline_shared.states import DeviceState


@dataclass(frozen=True, kw_only=True)
class News:
    """All that one device may have to be told. ``refused``: why it may not be connected any more."""

    desired: DesiredState | None = None
    tasks: Sequence[TaskOffer] = ()
    refused: FoglineError | None = None


def news_for(session: Session, device_id: str, *, now: datetime) -> News:
    """The present truth for one device."""
    try:
        require_admitted(session, device_id)
    except FoglineError as error:
        return News(refused=error)
    return News(desired=desired.desired_for(session, device_id), tasks=offers.open_tasks(session, device_id, now=now))


@dataclass(frozen=True, kw_only=True)
class Heads:
    """The ends of everything that can be new, for the whole fleet, in three queries whatever its size."""

    open_tasks: Mapping[str, Collection[str]]
    generations: Mapping[str, int]
    revoked: Collection[str]


def heads(session: Session) -> Heads:
    """Open task ids and desired generation by device, and who is revoked."""
    tasks: dict[str, set[str]] = {}
    for task_id, device_id in session.execute(select(Task.id, Task.device_id).where(Task.closed.is_(False))):
        tasks.setdefault(device_id, set()).add(task_id)
    generations = {
        row.device_id: row.generation for row in session.execute(select(Desired.device_id, Desired.generation))
    }
    revoked = session.scalars(select(Device.id).where(Device.state == DeviceState.REVOKED)).all()
    return Heads(open_tasks=tasks, generations=generations, revoked=frozenset(revoked))
