"""Which devices a stage takes, and handing them their assignments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from fractions import Fraction
from math import floor

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from fogline_server.db.base import new_id
from fogline_server.devices.tables import Device
from fogline_server.registry.tables import Release
from fogline_server.rollouts import desired, store
from fogline_server.rollouts.desired import Target
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.rollouts.tables import Assignment, Desired, Rollout, Stage
from fogline_shared.states import AssignmentState, DeviceState, ReleaseState


def quota(percent: float, reachable: int) -> int:
    """Devices up to and including a stage: rounded down, a percentage is what is risked at most; but never none."""
    # As the person wrote it: 0.07 % of 10,000 devices are 7, which binary fractions make 7.000000000000001.
    share = Fraction(repr(percent)) * reachable / 100
    return min(reachable, max(1, floor(share)))


def admit(session: Session, rollout: Rollout, plan: RolloutPlan, stage: Stage, *, now: datetime) -> list[str]:
    """Assign the stage's devices; return their ids.

    Only devices that are online are taken, and a stage's percentage is of the devices that can be reached now: a canary
    that cannot report proves nothing, and a fleet that is mostly away does not put all that is left at risk.
    """
    store.lock_admissions(session)
    fleet = store.meant(session, recipe=rollout.recipe, tags=plan.tags)
    assigned = {a.device_id for a in store.assignments(session, rollout.id)}
    busy = _busy(session, rollout.id)
    free = [d for d in fleet if d.id not in assigned and d.id not in busy and store.online(d, now)]
    room = quota(stage.percent, len(assigned) + len(free)) - len(assigned)
    chosen = store.admission_order(rollout.id, free)[: max(0, room)]
    for device in chosen:
        assign(session, rollout, plan, device, stage=stage.number, now=now)
    return [device.id for device in chosen]


def assign(
    session: Session, rollout: Rollout, plan: RolloutPlan, device: Device, *, stage: int, now: datetime
) -> Assignment:
    """Point one device at the rollout's artifact, remembering what it returns to."""
    assignment_id = new_id("asg")
    target = Target(
        release_id=rollout.release_id,
        variant=rollout.variant,
        digest=rollout.artifact_digest,
        size=rollout.artifact_size,
    )
    before = desired.point(
        session, device, target, assignment_id=assignment_id, attempt=1, probation_s=plan.probation_s, now=now
    )
    assignment = Assignment(
        id=assignment_id,
        rollout_id=rollout.id,
        device_id=device.id,
        stage=stage,
        state=AssignmentState.OFFERED,
        attempt=1,
        previous_release_id=before.release_id,
        previous_variant=before.variant,
        previous_digest=before.digest,
        previous_size=before.size,
        created_at=now,
        updated_at=now,
    )
    session.add(assignment)
    session.flush()
    return assignment


def behind(session: Session, rollout: Rollout, newer: Sequence[Rollout], *, now: datetime) -> list[Device]:
    """Online devices a succeeded rollout is for that have had no part in it: they were away, or are new.

    Not those that a ``newer`` succeeded rollout is for, nor those that an unfinished one has taken; none at all once the
    release is withdrawn.
    """
    if session.get_one(Release, rollout.release_id, populate_existing=True).state != ReleaseState.READY:
        return []
    plan = RolloutPlan.from_json(rollout.plan)
    has_part = exists().where(Assignment.rollout_id == rollout.id, Assignment.device_id == Device.id)
    query = select(Device).where(Device.state == DeviceState.ACTIVE, Device.lease_until > now, ~has_part)
    without = store.for_whom(session.scalars(query.order_by(Device.id)), recipe=rollout.recipe, tags=plan.tags)
    if not without:
        return []
    elsewhere = {d.id for n in newer for d in store.for_whom(without, recipe=n.recipe, tags=n.plan["tags"])}
    there = set(session.scalars(select(Desired.device_id).where(Desired.artifact_digest == rollout.artifact_digest)))
    return [d for d in without if d.id not in elsewhere | there | _busy(session, rollout.id)]


def _busy(session: Session, rollout_id: str) -> set[str]:
    """Devices that another rollout, which still moves devices, has taken."""
    query = select(Assignment.device_id).join(Rollout, Rollout.id == Assignment.rollout_id)
    return set(session.scalars(query.where(Rollout.state.in_(store.UNFINISHED), Rollout.id != rollout_id)))
