"""Fires schedules that are due. What an action writes and the schedule's next time commit together: once, or not yet."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.database import Database
from fogline_server.jobs.tables import Job
from fogline_server.rollouts.tables import Rollout
from fogline_server.schedules.service import Action, spec_of
from fogline_server.schedules.tables import Schedule
from fogline_server.training.tables import Run
from fogline_shared.errors import FoglineError
from fogline_shared.states import JOB, JobState, RolloutState

# Up to this late is on time; later, the misfire policy decides.
GRACE = timedelta(seconds=60)

_log = structlog.get_logger()


def tick(db: Database, *, now: datetime, actions: Mapping[str, Action]) -> int:
    """Fire what is due; return how many schedules were dealt with."""
    with db.read() as session:
        due = select(Schedule.id).where(Schedule.enabled, Schedule.next_at <= now).order_by(Schedule.next_at)
        ids = session.scalars(due).all()
    fired = 0
    for schedule_id in ids:
        try:
            with db.transaction() as session:
                fired += _fire(session, schedule_id, now=now, actions=actions)
        except Exception:  # one that cannot be read (its time zone is gone) must not stop the others
            _log.exception("schedule.stuck", schedule_id=schedule_id)
    return fired


def _fire(session: Session, schedule_id: str, *, now: datetime, actions: Mapping[str, Action]) -> bool:
    """Deal with one schedule, unless another replica does or has done so."""
    query = select(Schedule).where(Schedule.id == schedule_id).with_for_update(skip_locked=True)
    schedule = session.scalar(query)
    if schedule is None or not schedule.enabled or schedule.next_at is None or schedule.next_at > now:
        return False
    due, last = schedule.next_at, (schedule.last_result or {}).get("id")
    schedule.next_at = spec_of(schedule).next_after(now)
    if schedule.misfire == "skip" and now - due > GRACE:
        # The id stays: what it names may still be under way at the next time.
        outcome = {"skipped": "misfire", "due": due.isoformat()} | ({"id": last} if last else {})
    elif schedule.overlap == "skip" and (busy := _unfinished(session, last)):
        outcome = {"skipped": "overlap", "id": busy}
    else:
        outcome = _start(session, schedule, actions[schedule.action], now=now)
        schedule.last_at = now
    schedule.last_result = outcome
    events.record(session, "schedule.fired", "schedule", schedule.id, action=schedule.action, **outcome)
    return True


def _start(session: Session, schedule: Schedule, action: Action, *, now: datetime) -> dict[str, str]:
    """Run the action in a savepoint: one that fails leaves nothing but its error."""
    try:
        with session.begin_nested():
            return {"id": action.start(session, schedule.spec, now, f"schedule:{schedule.name}")}
    except FoglineError as error:
        return {"code": error.code, "message": error.message}
    except Exception as error:  # an action's bug must not stop the other schedules, nor be tried for ever
        _log.exception("schedule.action_failed", schedule=schedule.name)
        return {"code": "internal", "message": type(error).__name__}


def _unfinished(session: Session, started: str | None) -> str | None:
    """The id of what was started last time, if it has not ended."""
    match (started or "").split("_")[0]:
        case "run":
            run = session.get(Run, started)
            busy = run is not None and run.finished_at is None
        case "job":
            job = session.get(Job, started)
            # FAILED may be retried, but nothing is under way.
            busy = job is not None and job.state != JobState.FAILED and not JOB.terminal(JobState(job.state))
        case "rol":
            rollout = session.get(Rollout, started)
            busy = rollout is not None and rollout.state in _MOVING
        case _:
            busy = False
    return started if busy else None


_MOVING = frozenset({RolloutState.SCHEDULED, RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ROLLING_BACK})
