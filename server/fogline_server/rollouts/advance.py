"""One step of one rollout. Each is a transaction of its own; what a killed coordinator left undone, the next tick does.

The caller holds the rollout's row lock. A step reads the rows, makes at most one transition, and says whether another
step may follow at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.devices.tables import Device
from fogline_server.rollouts import returning, store
from fogline_server.rollouts.admission import admit
from fogline_server.rollouts.desired import take_back
from fogline_server.rollouts.judging import Judgement, judge
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.rollouts.tables import Assignment, Rollout, Stage
from fogline_shared.states import ASSIGNMENT, ROLLOUT, STAGE, AssignmentState, RolloutState, StageState

_SETTLED = frozenset(s for s in AssignmentState if ASSIGNMENT.terminal(s)) | {AssignmentState.SUCCEEDED}
# Devices in these have loaded the artifact, or are about to.
_HAVE_IT = frozenset({AssignmentState.STAGED, AssignmentState.ACTIVATING, AssignmentState.PROBATION})


@dataclass(frozen=True, kw_only=True)
class Step:
    """``moved``: something changed, so another step may follow. ``devices``: whose desired state changed."""

    moved: bool = False
    devices: Sequence[str] = ()


def advance(session: Session, rollout: Rollout, *, now: datetime) -> Step:
    """Take one step, if there is one to take."""
    plan = RolloutPlan.from_json(rollout.plan)
    match rollout.state:
        case RolloutState.SCHEDULED:
            due = rollout.start_at is not None and rollout.start_at <= now
            return _begin(session, rollout, plan, now=now) if due else Step()
        case RolloutState.RUNNING | RolloutState.PAUSED:
            return _watch(session, rollout, plan, now=now)
        case RolloutState.ROLLING_BACK:
            moved, devices = returning.go_on(session, rollout, now=now)
            return Step(moved=moved, devices=devices)
        case _:
            return Step()


def _begin(session: Session, rollout: Rollout, plan: RolloutPlan, *, now: datetime) -> Step:
    """Start, once nothing that may not be superseded is in the way."""
    store.lock_starts(session)
    others = store.in_the_way(session, recipe=rollout.recipe, tags=plan.tags, but=rollout.id)
    if any(not plan.supersede or other.state == RolloutState.ROLLING_BACK for other in others):
        rollout.reason = f"waits for rollout {others[0].id}"
        return Step()
    devices: list[str] = []
    for other in others:
        devices += returning.supersede(session, other.id, by=rollout.id, now=now)
    previous = store.promoted(session, recipe=rollout.recipe, tags=plan.tags)
    rollout.previous_release_id = previous.release_id if previous else None
    rollout.started_at, rollout.reason = now, ""
    _turn(session, rollout, RolloutState.RUNNING, "rollout.started")
    return Step(moved=True, devices=devices)


def _watch(session: Session, rollout: Rollout, plan: RolloutPlan, *, now: datetime) -> Step:
    """Look for failure first, also while paused; go forward only while running."""
    stage = session.get_one(Stage, (rollout.id, rollout.current_stage))
    judgement = Judgement(against="", results=())
    if not STAGE.terminal(StageState(stage.state)):
        judgement = judge(session, rollout, plan, stage)
        seen = [result.as_json(name) for name, result in judgement.results]
        if seen != stage.evidence:
            stage.evidence = seen
        if judgement.against:
            return _fail(session, rollout, plan, stage, judgement.against, now=now)
    return (
        Step() if rollout.state == RolloutState.PAUSED else _forward(session, rollout, plan, stage, judgement, now=now)
    )


def _forward(
    session: Session, rollout: Rollout, plan: RolloutPlan, stage: Stage, judgement: Judgement, *, now: datetime
) -> Step:
    match stage.state:
        case StageState.PENDING:
            return _admit(session, rollout, plan, stage, now=now)
        case StageState.ADMITTING:
            return _settle(session, rollout, plan, stage, now=now)
        case StageState.SOAKING if stage.soak_until is not None and stage.soak_until <= now:
            _enter(session, rollout, plan, stage, StageState.EVALUATING, now=now)
            return Step(moved=True)
        case StageState.EVALUATING:
            return _evaluate(session, rollout, plan, stage, judgement, now=now)
        case _:
            return Step()


def _admit(session: Session, rollout: Rollout, plan: RolloutPlan, stage: Stage, *, now: datetime) -> Step:
    devices = admit(session, rollout, plan, stage, now=now)
    if not devices and not store.assignments(session, rollout.id):
        rollout.reason = "waits for a device to be online"
        return Step()
    rollout.reason, stage.started_at = "", now
    _enter(session, rollout, plan, stage, StageState.ADMITTING, now=now, admitted=len(devices))
    return Step(moved=True, devices=devices)


def _settle(session: Session, rollout: Rollout, plan: RolloutPlan, stage: Stage, *, now: datetime) -> Step:
    """End the admission when every device has settled, or when time is up and enough of those reachable have.

    A device that went offline before it had the artifact counts neither way; it converges when it returns. One that is
    online and still has not settled, or has not been heard of since it had the artifact, has timed out and goes back.
    When fewer than half are left to count, a person decides: perhaps the artifact took the others down.
    """
    mine = store.assignments(session, rollout.id, stage=stage.number)
    unsettled = [a for a in mine if a.state not in _SETTLED]
    if unsettled and (stage.deadline_at is None or now < stage.deadline_at):
        return Step()
    here = set(session.scalars(select(Device.id).where(Device.lease_until > now)))
    late = [a for a in unsettled if a.device_id in here or a.state in _HAVE_IT]
    returned = [device for a in late for device in _time_out(session, a, now=now)]
    judged = len(mine) - len(unsettled) + len(late)
    succeeded = sum(a.state == AssignmentState.SUCCEEDED for a in mine)
    if judged * 2 < len(mine):
        gone = f"{len(mine) - judged} of {len(mine)} devices"
        paused = _pause(session, rollout, f"{gone} of stage {stage.number + 1} went offline during their update")
        return Step(moved=paused.moved, devices=returned)
    if judged and succeeded < judged * plan.success_percent / 100.0:
        reason = f"{succeeded} of {judged} devices succeeded in time, {plan.success_percent:g} % are asked"
        failed = _fail(session, rollout, plan, stage, reason, now=now)
        return Step(moved=failed.moved, devices=returned)
    stage.soak_until = now + timedelta(seconds=plan.soak_s)
    _enter(session, rollout, plan, stage, StageState.SOAKING, now=now, succeeded=succeeded)
    return Step(moved=True, devices=returned)


def _time_out(session: Session, assignment: Assignment, *, now: datetime) -> list[str]:
    """End one assignment unless its device has reported since we looked; the id of a device that goes back."""
    session.refresh(assignment, with_for_update=True)
    if assignment.state in _SETTLED:
        return []
    assignment.state = ASSIGNMENT.check(AssignmentState(assignment.state), AssignmentState.TIMED_OUT)
    assignment.code, assignment.updated_at = "admit_timeout", now
    return [assignment.device_id] if take_back(session, assignment, now=now) else []


def _evaluate(
    session: Session, rollout: Rollout, plan: RolloutPlan, stage: Stage, judgement: Judgement, *, now: datetime
) -> Step:
    if judgement.passed:
        stage.finished_at = now
        _enter(session, rollout, plan, stage, StageState.PASSED, now=now, evidence=stage.evidence)
        if stage.number + 1 < len(plan.stages):
            rollout.current_stage = stage.number + 1
        else:
            rollout.finished_at = now
            _turn(session, rollout, RolloutState.SUCCEEDED, "rollout.succeeded")
        return Step(moved=True)
    if stage.deadline_at is not None and now >= stage.deadline_at:
        _enter(session, rollout, plan, stage, StageState.INCONCLUSIVE, now=now, evidence=stage.evidence)
        return _pause(session, rollout, f"gates cannot tell: {judgement.holding}")
    return Step()


def _fail(session: Session, rollout: Rollout, plan: RolloutPlan, stage: Stage, reason: str, *, now: datetime) -> Step:
    stage.finished_at = now
    _enter(session, rollout, plan, stage, StageState.FAILED, now=now, reason=reason, evidence=stage.evidence)
    rollout.reason = f"stage {stage.number + 1} failed: {reason}"[:2000]
    rollout.rollback_until = now + timedelta(seconds=plan.rollback_timeout_s)
    _turn(session, rollout, RolloutState.ROLLING_BACK, "rollout.rolling_back")
    return Step(moved=True)


def _pause(session: Session, rollout: Rollout, reason: str) -> Step:
    rollout.reason = reason[:2000]
    _turn(session, rollout, RolloutState.PAUSED, "rollout.paused")
    return Step(moved=True)


def _enter(
    session: Session,
    rollout: Rollout,
    plan: RolloutPlan,
    stage: Stage,
    target: StageState,
    *,
    now: datetime,
    **facts: Any,
) -> None:
    stage.state = STAGE.check(StageState(stage.state), target)
    stage.deadline_at = plan.deadline(target, now)
    events.record(session, f"rollout.stage_{target.lower()}", "rollout", rollout.id, stage=stage.number, **facts)


def _turn(session: Session, rollout: Rollout, target: RolloutState, event: str) -> None:
    rollout.state = ROLLOUT.check(RolloutState(rollout.state), target)
    rollout.version += 1
    events.record(session, event, "rollout", rollout.id, reason=rollout.reason)
