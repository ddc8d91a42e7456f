"""Use cases of schedules: keep them; ``tick`` fires them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.base import new_id
from fogline_server.schedules.tables import Schedule
from fogline_shared.errors import Conflict, InvalidInput, NotFound


@dataclass(frozen=True, kw_only=True)
class Action:
    """What a schedule may start.

    ``check``: raises InvalidInput for a spec that can never be right; reads nothing. ``start``: ``(session, spec, now,
    actor) → id`` of what was started; raises FoglineError to start nothing.
    """

    check: Callable[[Mapping[str, Any]], object]
    start: Callable[[Session, Mapping[str, Any], datetime, str], str]


ACTIONS = ("run", "rollout", "job")
MISFIRES = ("fire_once", "skip")
OVERLAPS = ("skip", "allow")


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """What to start and when: once (``at``) or by ``cron`` in ``time_zone``. InvalidInput ``invalid_schedule``.

    ``misfire``: a time that passed while no coordinator ran is made up for once, or skipped. ``overlap``: what to do
    while the thing started last time is unfinished. ``spec`` is the action's own: its form is checked when the schedule is
    stored, what it names (a release, an alias) is looked for when it fires.
    """

    name: str
    action: str
    spec: Mapping[str, Any] = field(default_factory=dict)
    cron: str | None = None
    at: datetime | None = None
    time_zone: str = "UTC"
    misfire: str = "fire_once"
    overlap: str = "skip"
    enabled: bool = True

    def __post_init__(self) -> None:
        _require(0 < len(self.name) <= 80 and self.name.isprintable(), "name", "1 to 80 printable characters")
        _require(self.action in ACTIONS, "action", f"one of {', '.join(ACTIONS)}")
        _require(self.misfire in MISFIRES, "misfire", f"one of {', '.join(MISFIRES)}")
        _require(self.overlap in OVERLAPS, "overlap", f"one of {', '.join(OVERLAPS)}")
        _require((self.cron is None) != (self.at is None), "cron", "either cron or at, not both")
        _require(self.at is None or self.at.tzinfo is not None, "at", "a time with its offset")
        self.next_after(datetime.now(UTC))

    def next_after(self, moment: datetime) -> datetime | None:
        """The next time after ``moment``, UTC; None: never again."""
        if self.at is not None:
            return self.at.astimezone(UTC) if self.at > moment else None
        assert self.cron is not None
        _require(len(self.cron) <= 80, "cron", "at most 80 characters")
        try:
            times = CronSim(self.cron, moment.astimezone(_zone(self.time_zone)))
        except CronSimError as error:
            raise InvalidInput("invalid_schedule", f"cron: {error}", field="cron") from error
        # In the hour that a clock shows twice, the first answers may lie before the moment.
        return next((found for time in times if (found := time.astimezone(UTC)) > moment), None)


def create_schedule(
    session: Session, spec: ScheduleSpec, *, actions: Mapping[str, Action], now: datetime, actor: str
) -> Schedule:
    """Store it; Conflict ``schedule_name_taken``, InvalidInput for what its action can never start.

    An ``at`` in the past fires at once.
    """
    actions[spec.action].check(spec.spec)
    _free_name(session, spec.name)
    schedule = Schedule(id=new_id("sch"), created_at=now)
    _apply(schedule, spec, now=now)
    session.add(schedule)
    session.flush()
    events.record(session, "schedule.created", "schedule", schedule.id, actor=actor, name=spec.name)
    return schedule


def update_schedule(
    session: Session,
    schedule_id: str,
    spec: ScheduleSpec,
    *,
    actions: Mapping[str, Action],
    now: datetime,
    actor: str,
) -> Schedule:
    """Replace it (``spec_of`` and ``dataclasses.replace`` change one field); its next time is counted from now.

    An ``at`` that has fired does not fire again unless it is changed. Raises like :func:`create_schedule`.
    """
    actions[spec.action].check(spec.spec)
    schedule = _locked(session, schedule_id)
    if spec.name != schedule.name:
        _free_name(session, spec.name)
    _apply(schedule, spec, now=now)
    session.flush()
    events.record(session, "schedule.updated", "schedule", schedule.id, actor=actor, name=spec.name)
    return schedule


def delete_schedule(session: Session, schedule_id: str, *, now: datetime, actor: str) -> None:
    """Remove it; what it started goes on."""
    del now
    schedule = _locked(session, schedule_id)
    session.delete(schedule)
    session.flush()
    events.record(session, "schedule.deleted", "schedule", schedule_id, actor=actor, name=schedule.name)


def get_schedule(session: Session, schedule_id: str) -> Schedule:
    """One schedule; NotFound ``schedule_not_found``."""
    schedule = session.get(Schedule, schedule_id)
    if schedule is None:
        raise NotFound("schedule_not_found", f"there is no schedule {schedule_id!r}")
    return schedule


def list_schedules(session: Session, *, after: str | None = None, limit: int = 50) -> Sequence[Schedule]:
    """Newest first; ``after``: the id of the last one of the page before."""
    query = select(Schedule).order_by(Schedule.id.desc()).limit(limit)
    if after is not None:
        query = query.where(Schedule.id < after)
    return session.scalars(query).all()


def spec_of(schedule: Schedule) -> ScheduleSpec:
    """The value a row was made from."""
    return ScheduleSpec(
        name=schedule.name,
        action=schedule.action,
        spec=schedule.spec,
        cron=schedule.cron,
        at=schedule.at,
        time_zone=schedule.time_zone,
        misfire=schedule.misfire,
        overlap=schedule.overlap,
        enabled=schedule.enabled,
    )


def _apply(schedule: Schedule, spec: ScheduleSpec, *, now: datetime) -> None:
    done = (
        spec.at is not None and spec.at == schedule.at and schedule.next_at is None and schedule.last_result is not None
    )
    schedule.name, schedule.action, schedule.spec = spec.name, spec.action, dict(spec.spec)
    schedule.cron, schedule.at, schedule.time_zone = spec.cron, spec.at, spec.time_zone
    schedule.misfire, schedule.overlap, schedule.enabled = spec.misfire, spec.overlap, spec.enabled
    schedule.next_at = (spec.at or spec.next_after(now)) if spec.enabled and not done else None


def _free_name(session: Session, name: str) -> None:
    if session.scalar(select(Schedule.id).where(Schedule.name == name)) is not None:
        raise Conflict("schedule_name_taken", f"there is a schedule named {name!r} already", name=name)


def _locked(session: Session, schedule_id: str) -> Schedule:
    schedule = session.get(Schedule, schedule_id, with_for_update=True, populate_existing=True)
    if schedule is None:
        raise NotFound("schedule_not_found", f"there is no schedule {schedule_id!r}")
    return schedule


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:  # unknown, malformed, a folder of the zone database
        raise InvalidInput("invalid_schedule", f"time_zone: no time zone {name[:60]!r}", field="time_zone") from error


def _require(holds: bool, name: str, wanted: str) -> None:  # noqa: FBT001 - an assertion's argument
    if not holds:
        raise InvalidInput("invalid_schedule", f"{name}: {wanted}", field=name)
