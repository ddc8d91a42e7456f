"""Returning a rollout's devices to what they ran before: rollbacks, and rollouts that another one supersedes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.devices.tables import Device
from fogline_server.rollouts import store
from fogline_server.rollouts.desired import take_back
from fogline_server.rollouts.reports import FAILED
from fogline_server.rollouts.tables import Assignment, Desired, Rollout, Stage
from fogline_shared.states import ASSIGNMENT, ROLLOUT, STAGE, AssignmentState, RolloutState, StageState

_ENDED = tuple(s for s in AssignmentState if ASSIGNMENT.terminal(s))
# Devices returned in one transaction.
_BATCH = 500


def go_on(session: Session, rollout: Rollout, *, now: datetime) -> tuple[bool, Sequence[str]]:
    """One step of a rollback: return a batch of devices or, when none is left, wait for those online to confirm.

    Returns whether anything changed, and whose desired state did.
    """
    ended, devices = _return(session, rollout, "rolled_back", now=now, limit=_BATCH)
    if ended:
        return True, devices
    late = rollout.rollback_until is not None and now >= rollout.rollback_until
    if not late and _unconfirmed(session, rollout, now=now):
        return False, ()
    _close_stage(session, rollout, now=now)
    _end(session, rollout, RolloutState.ROLLED_BACK, "rollout.rolled_back", now=now)
    return True, ()


def supersede(session: Session, rollout_id: str, *, by: str, now: datetime) -> Sequence[str]:
    """End a rollout in favour of another; return the devices that go back first, which the other then takes over."""
    rollout = store.locked(session, rollout_id)
    if rollout is None or rollout.state not in {RolloutState.RUNNING, RolloutState.PAUSED}:
        return ()
    _, devices = _return(session, rollout, "superseded", now=now)
    rollout.reason = f"superseded by rollout {by}"
    _close_stage(session, rollout, now=now)
    _end(session, rollout, RolloutState.SUPERSEDED, "rollout.superseded", now=now)
    return devices


def _return(
    session: Session, rollout: Rollout, code: str, *, now: datetime, limit: int | None = None
) -> tuple[int, list[str]]:
    """End the rollout's open assignments; how many, and the devices whose desired state changed."""
    query = select(Assignment).where(Assignment.rollout_id == rollout.id, Assignment.state.not_in(_ENDED))
    query = query.order_by(Assignment.id).limit(limit).with_for_update()
    open_ones = session.scalars(query.execution_options(populate_existing=True)).all()
    devices = []
    for assignment in open_ones:
        current = AssignmentState(assignment.state)
        done = current == AssignmentState.SUCCEEDED
        assignment.state = ASSIGNMENT.check(current, AssignmentState.SUPERSEDED if done else AssignmentState.CANCELED)
        assignment.code, assignment.updated_at = code, now
        if take_back(session, assignment, now=now):
            devices.append(assignment.device_id)
    return len(open_ones), devices


def _unconfirmed(session: Session, rollout: Rollout, *, now: datetime) -> bool:
    """Whether an online device has yet to say that it runs what it was returned to.

    A device that went back by itself runs it already; one that a later rollout has moved on is no longer ours.
    """
    waiting = (
        select(Assignment.id)
        .join(Desired, (Desired.device_id == Assignment.device_id) & (Desired.assignment_id == Assignment.id))
        .join(Device, Device.id == Assignment.device_id)
        .where(
            Assignment.rollout_id == rollout.id,
            Assignment.state.not_in(FAILED),
            Device.lease_until > now,
            Device.active_generation < Desired.generation,
        )
    )
    return bool(session.scalar(select(exists(waiting))))


def _close_stage(session: Session, rollout: Rollout, *, now: datetime) -> None:
    """A stage that was under way when somebody ended the rollout has failed."""
    stage = session.get_one(Stage, (rollout.id, rollout.current_stage))
    state = StageState(stage.state)
    if stage.started_at is not None and not STAGE.terminal(state):
        stage.state = STAGE.check(state, StageState.FAILED)
        stage.deadline_at, stage.finished_at = None, now


def _end(session: Session, rollout: Rollout, target: RolloutState, event: str, *, now: datetime) -> None:
    rollout.state = ROLLOUT.check(RolloutState(rollout.state), target)
    rollout.finished_at = now
    rollout.version += 1
    events.record(session, event, "rollout", rollout.id, reason=rollout.reason)
