"""Moves rollouts on. Safe to run twice, to be killed between any two steps, and to run on several coordinators."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import structlog
from sqlalchemy import or_, select

from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import DEVICES, EVENTS, Doorbell
from fogline_server.rollouts import store
from fogline_server.rollouts.admission import assign, behind
from fogline_server.rollouts.advance import advance
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.rollouts.tables import Rollout
from fogline_shared.states import RolloutState

_log = structlog.get_logger()

# Steps of one rollout in one tick; what is left waits for the next tick.
_STEPS = 50
# Devices that catch up in one tick: a fleet that returns all at once is let in at this pace.
_CATCH_UP = 100


def tick(db: Database, *, now: datetime, doorbell: Doorbell) -> int:
    """Take every step that can be taken; return how many were."""
    with db.read() as session:
        due = or_(
            Rollout.state.in_(store.UNFINISHED),
            (Rollout.state == RolloutState.SCHEDULED) & (Rollout.start_at <= now),
        )
        ids = session.scalars(select(Rollout.id).where(due).order_by(Rollout.id)).all()
    steps = sum(_advance(db, rollout_id, now=now, doorbell=doorbell) for rollout_id in ids)
    return steps + _catch_up(db, now=now, doorbell=doorbell)


def _advance(db: Database, rollout_id: str, *, now: datetime, doorbell: Doorbell) -> int:
    """Take one rollout's steps. What is wrong with it (a gate that is no longer installed) stops no other."""
    try:
        return _steps(db, rollout_id, now=now, doorbell=doorbell)
    except Exception:
        _log.exception("rollout.stuck", rollout_id=rollout_id)
        return 0


def _steps(db: Database, rollout_id: str, *, now: datetime, doorbell: Doorbell) -> int:
    for taken in range(_STEPS):
        with db.transaction() as session:
            rollout = store.locked(session, rollout_id, skip=True)
            if rollout is None:
                return taken
            step = advance(session, rollout, now=now)
        if not step.moved:
            return taken
        _ring(doorbell, step.devices)
    return _STEPS


def _catch_up(db: Database, *, now: datetime, doorbell: Doorbell) -> int:
    """Bring devices that were away, or are new, to the release that was promoted last for them."""
    with db.read() as session:
        current = store.current(session)
        waiting = [i for i, rollout in enumerate(current) if behind(session, rollout, current[:i], now=now)]
    caught = 0
    for i in waiting:
        with db.transaction() as session:
            rollout = store.locked(session, current[i].id, skip=True)
            if rollout is None or rollout.state != RolloutState.SUCCEEDED:
                continue
            plan = RolloutPlan.from_json(rollout.plan)
            store.lock_admissions(session)
            devices = behind(session, rollout, current[:i], now=now)[: _CATCH_UP - caught]
            for device in devices:
                assign(session, rollout, plan, device, stage=len(plan.stages), now=now)
        caught += len(devices)
        _ring(doorbell, [device.id for device in devices])
    return caught


def _ring(doorbell: Doorbell, devices: Iterable[str]) -> None:
    """After commit, so that whoever wakes finds the rows."""
    if listed := ",".join(devices):
        # An empty payload would wake every device.
        doorbell.ring(DEVICES, listed)
    doorbell.ring(EVENTS)
