"""The buffer of an asynchronous run, in SQL: who is at work, what waits for a step, what a step has taken.

An update is in the buffer until a step takes it, which is written (``Update.step``) before anything is computed from it. So a
trainer that was killed takes the same updates again, whatever has come since, and no update is in two steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, update
from sqlalchemy.orm import Session

from fogline_server.training.tables import Task, Update
from fogline_shared.states import UpdateVerdict

TRAIN = "train"

_AT_WORK = and_(Task.closed.is_(False), Update.task_id.is_(None))
_WAITS = and_(Update.task_id.is_not(None), Update.verdict.is_(None), Update.step.is_(None))


@dataclass(frozen=True, kw_only=True)
class Level:
    """How full the buffer is, without what is too stale.

    ``usable``: updates that wait; ``failed``: answers that are none; ``pending``: devices that may still answer in time.
    """

    usable: int
    failed: int
    pending: int


def close_expired(session: Session, run_id: str, *, now: datetime) -> None:
    """Devices past their deadline give up their places, before others, or they themselves, are asked in their stead.

    Closing, not only passing over: the gateway locks the task's row, so by whatever clock, a reply is in before, or late after.
    """
    expired = (Task.run_id == run_id, Task.kind == TRAIN, Task.closed.is_(False), Task.deadline <= now)
    session.execute(update(Task).where(*expired).values(closed=True))


def busy(session: Session, run_id: str, *, now: datetime) -> set[str]:
    """Ids of the devices that are at work on the run, or whose update waits: none is asked again, so each has one at most."""
    return set(session.scalars(_tasks(run_id).where(_busy(now)).with_only_columns(Task.device_id)))


@dataclass(frozen=True, kw_only=True)
class Busy:
    """What keeps a device busy. ``round``: whose version it began from; ``waits``: its update is in the buffer."""

    round: int
    waits: bool


def busy_with(session: Session, run_id: str, device_id: str, *, now: datetime) -> Busy | None:
    """What keeps one device busy; None: a step may ask it."""
    rows = _tasks(run_id, Task.device_id == device_id).where(_busy(now)).with_only_columns(Task.round, Update.task_id)
    told = session.execute(rows).tuples().one_or_none()
    return None if told is None else Busy(round=told[0], waits=told[1] is not None)


def oldest(session: Session, run_id: str, *, default: int) -> int:
    """The earliest round from which an answer may still be taken: a look need not read rounds before it."""
    rows = _tasks(run_id).where(or_(_AT_WORK, _WAITS)).with_only_columns(func.min(Task.round))
    return session.scalar(rows) or default


def level(session: Session, run_id: str, *, since: int, now: datetime) -> Level:
    """Counts over the tasks of round ``since`` and later."""
    counts = _tasks(run_id, Task.round >= since).with_only_columns(
        func.count().filter(_WAITS, Update.code == ""),
        func.count().filter(_WAITS, Update.code != ""),
        func.count().filter(_AT_WORK, Task.deadline > now),
    )
    usable, failed, pending = session.execute(counts).one()
    return Level(usable=usable, failed=failed, pending=pending)


def taken(session: Session, run_id: str, number: int) -> Sequence[tuple[Update, Task]]:
    """What step ``number`` has taken and not yet judged, in the order in which it came."""
    rows = select(Update, Task).join(Task, Task.id == Update.task_id).where(Task.run_id == run_id, Task.kind == TRAIN)
    mine = rows.where(Update.step == number, Update.verdict.is_(None))
    return session.execute(mine.order_by(Update.received_at, Update.task_id)).tuples().all()


def take(session: Session, run_id: str, number: int, *, size: int, max_staleness: int) -> None:
    """Give step ``number`` the first ``size`` usable updates, and every answer that is none: a failure, a late or too stale one."""
    late = and_(Update.verdict == UpdateVerdict.LATE, Update.step.is_(None))
    rows = select(Update, Task.round).join(Task, Task.id == Update.task_id)
    rows = rows.where(Task.run_id == run_id, Task.kind == TRAIN, or_(_WAITS, late))
    counted = 0
    for answer, version in session.execute(rows.order_by(Update.received_at, Update.task_id)).tuples():
        stale = number - version
        if answer.verdict is None and not answer.code:
            if stale > max_staleness:
                _late(answer, code="too_stale", reason=f"it began {stale} steps ago; max_staleness is {max_staleness}")
            elif counted == size:
                continue
            else:
                counted += 1
        answer.step = number


def close(session: Session, run_id: str) -> None:
    """No step is to come: devices are told to stop, and what waits is late."""
    # Closing before reading: the gateway locks the task's row, so a reply is either seen here or late.
    session.execute(update(Task).where(Task.run_id == run_id, Task.closed.is_(False)).values(closed=True))
    mine = select(Task.id).where(Task.run_id == run_id, Task.kind == TRAIN)
    for answer in session.scalars(select(Update).where(Update.task_id.in_(mine), Update.verdict.is_(None))):
        _late(answer, code="round_over", reason="the run had taken its last step")


def _late(answer: Update, *, code: str, reason: str) -> None:
    answer.verdict, answer.code, answer.reason = UpdateVerdict.LATE, code, reason


def staleness_of(step: int | None, version: int) -> int | None:
    """How many steps before the one that took it an update began; None: no step of an asynchronous run has taken it."""
    return None if step is None else step - version


def mean_and_most(staleness: Mapping[int, int]) -> Mapping[str, float]:
    """A step's figures."""
    values = staleness.values()
    return {"staleness": sum(values) / len(values), "staleness_max": max(values)} if values else {}


def _busy(now: datetime) -> ColumnElement[bool]:
    return or_(and_(_AT_WORK, Task.deadline > now), _WAITS)


def _tasks(run_id: str, *also: ColumnElement[bool]) -> Select[Task]:
    """Training tasks, each with its update if it has been answered."""
    return (
        select(Task)
        .outerjoin(Update, Update.task_id == Task.id)
        .where(Task.run_id == run_id, Task.kind == TRAIN, *also)
    )
