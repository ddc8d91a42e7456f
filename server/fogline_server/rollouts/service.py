"""Use cases of rollouts: what a person or a schedule may do. Everything that happens by itself is ``tick``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.base import new_id
from fogline_server.registry.service import ready_release
from fogline_server.rollouts import store
from fogline_server.rollouts.admission import quota
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.rollouts.tables import Assignment, Rollout, Stage
from fogline_shared.errors import Conflict, InvalidInput, NotFound
from fogline_shared.states import ROLLOUT, STAGE, RolloutState, StageState


def create_rollout(
    session: Session,
    release_id: str,
    plan: RolloutPlan,
    *,
    start_at: datetime | None = None,
    now: datetime,
    actor: str,
) -> Rollout:
    """Write a rollout: DRAFT until it is started, or SCHEDULED when ``start_at`` is given.

    Raises NotFound ``release_not_found``, ``variant_not_found``; Conflict ``release_not_ready``, and, when it is to
    start now, ``rollout_active``; InvalidInput ``gate_needs_baseline``.
    """
    release, target = store.artifact(session, release_id, plan.variant)
    previous = store.promoted(session, recipe=release.recipe, tags=plan.tags)
    _check_baseline(plan, previous)
    rollout = Rollout(
        id=new_id("rol"),
        release_id=release_id,
        variant=target.variant,
        artifact_digest=target.digest,
        artifact_size=target.size,
        previous_release_id=previous.release_id if previous else None,
        recipe=release.recipe,
        state=RolloutState.DRAFT,
        plan=plan.to_json(),
        current_stage=0,
        reason="",
        version=1,
        created_at=now,
    )
    session.add(rollout)
    session.flush()
    for number, percent in enumerate(plan.stages):
        session.add(Stage(rollout_id=rollout.id, number=number, state=StageState.PENDING, percent=percent, evidence=[]))
    session.flush()
    events.record(session, "rollout.created", "rollout", rollout.id, actor=actor, release_id=release_id)
    if start_at is not None:
        _schedule(session, rollout, start_at, now=now, actor=actor)
    return rollout


def start(session: Session, rollout_id: str, *, now: datetime, actor: str) -> Rollout:
    """Start a draft, or a scheduled rollout before its time.

    Raises Conflict ``rollout_active`` when another is in the way, ``release_unlisted`` when its release was withdrawn.
    """
    rollout = _locked(session, rollout_id)
    _schedule(session, rollout, now, now=now, actor=actor)
    return rollout


def pause(session: Session, rollout_id: str, *, now: datetime, actor: str, reason: str = "") -> Rollout:
    """Stop going forward. Devices that were told to move still do; failing gates still roll back."""
    del now
    return _act(session, rollout_id, RolloutState.PAUSED, reason or f"paused by {actor}", "rollout.paused", actor=actor)


def resume(session: Session, rollout_id: str, *, now: datetime, actor: str) -> Rollout:
    """Go on; the current stage gets its whole time again."""
    rollout = _act(session, rollout_id, RolloutState.RUNNING, "", "rollout.resumed", actor=actor)
    plan = RolloutPlan.from_json(rollout.plan)
    stage = session.get_one(Stage, (rollout_id, rollout.current_stage))
    if stage.state == StageState.INCONCLUSIVE:
        stage.state = STAGE.check(StageState(stage.state), StageState.EVALUATING)
    stage.deadline_at = plan.deadline(StageState(stage.state), now)
    return rollout


def rollback(session: Session, rollout_id: str, *, reason: str, now: datetime, actor: str) -> Rollout:
    """Return every device of the rollout to what it ran before; also after it has succeeded.

    Raises Conflict ``release_unlisted`` when that was withdrawn.
    """
    for release_id in store.ways_back(session, rollout_id):
        ready_release(session, release_id, held=True)
    rollout = _act(
        session,
        rollout_id,
        RolloutState.ROLLING_BACK,
        reason or f"rolled back by {actor}",
        "rollout.rolling_back",
        actor=actor,
    )
    plan = RolloutPlan.from_json(rollout.plan)
    rollout.rollback_until = now + timedelta(seconds=plan.rollback_timeout_s)
    return rollout


def cancel(session: Session, rollout_id: str, *, now: datetime, actor: str) -> Rollout:
    """Drop a rollout that has not begun; one that has is rolled back instead."""
    rollout = _act(session, rollout_id, RolloutState.CANCELED, f"canceled by {actor}", "rollout.canceled", actor=actor)
    rollout.finished_at = now
    return rollout


def get_rollout(session: Session, rollout_id: str) -> Rollout:
    """One rollout; NotFound ``rollout_not_found``."""
    rollout = session.get(Rollout, rollout_id)
    if rollout is None:
        raise NotFound("rollout_not_found", f"there is no rollout {rollout_id!r}")
    return rollout


def list_rollouts(
    session: Session, *, state: str | None = None, after: str | None = None, limit: int = 50
) -> Sequence[Rollout]:
    """Newest first; ``after``: the id of the last one of the page before."""
    query = select(Rollout).order_by(Rollout.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Rollout.state == state)
    if after is not None:
        query = query.where(Rollout.id < after)
    return session.scalars(query).all()


def stages_of(session: Session, rollout_id: str) -> Sequence[Stage]:
    """The stages in order; NotFound ``rollout_not_found``."""
    get_rollout(session, rollout_id)
    return session.scalars(select(Stage).where(Stage.rollout_id == rollout_id).order_by(Stage.number)).all()


def wire_bytes(session: Session, rollout_id: str) -> int:
    """What was sent to the rollout's devices so far, of its artifact or of deltas that lead to it."""
    total = session.scalar(select(func.sum(Assignment.wire_bytes)).where(Assignment.rollout_id == rollout_id))
    return int(total or 0)


def assignments_of(
    session: Session, rollout_id: str, *, state: str | None = None, after: str | None = None, limit: int = 50
) -> Sequence[Assignment]:
    """In the order they were made; ``after``: the id of the last one of the page before."""
    get_rollout(session, rollout_id)
    query = select(Assignment).where(Assignment.rollout_id == rollout_id).order_by(Assignment.id).limit(limit)
    if state is not None:
        query = query.where(Assignment.state == state)
    if after is not None:
        query = query.where(Assignment.id > after)
    return session.scalars(query).all()


@dataclass(frozen=True, kw_only=True)
class Preview:
    """What a rollout would do if it started now. ``stages``: devices admitted by the end of each stage."""

    variant: str
    artifact_digest: str
    devices: int
    online: int
    stages: Sequence[int]
    previous_release_id: str | None
    in_the_way: Sequence[str]


def preview(session: Session, release_id: str, plan: RolloutPlan, *, now: datetime) -> Preview:
    """Check everything :func:`create_rollout` checks, write nothing, and say how many devices each stage reaches."""
    release, target = store.artifact(session, release_id, plan.variant)
    previous = store.promoted(session, recipe=release.recipe, tags=plan.tags)
    _check_baseline(plan, previous)
    fleet = store.meant(session, recipe=release.recipe, tags=plan.tags)
    reachable = sum(store.online(device, now) for device in fleet)
    return Preview(
        variant=target.variant,
        artifact_digest=target.digest,
        devices=len(fleet),
        online=reachable,
        stages=[quota(percent, reachable) for percent in plan.stages],
        previous_release_id=previous.release_id if previous else None,
        in_the_way=[r.id for r in store.in_the_way(session, recipe=release.recipe, tags=plan.tags)],
    )


def _schedule(session: Session, rollout: Rollout, start_at: datetime, *, now: datetime, actor: str) -> None:
    ready_release(session, rollout.release_id, held=True)
    plan = RolloutPlan.from_json(rollout.plan)
    if start_at <= now and not plan.supersede:
        store.lock_starts(session)
        others = store.in_the_way(session, recipe=rollout.recipe, tags=plan.tags, but=rollout.id, due=now)
        if others:
            raise Conflict(
                "rollout_active",
                f"rollout {others[0].id} to the same devices is {others[0].state}; end it, or ask to supersede it",
                rollout_id=others[0].id,
            )
    if rollout.state != RolloutState.SCHEDULED:
        rollout.state = ROLLOUT.check(RolloutState(rollout.state), RolloutState.SCHEDULED)
    rollout.start_at = start_at
    rollout.version += 1
    events.record(session, "rollout.scheduled", "rollout", rollout.id, actor=actor, start_at=start_at.isoformat())


def _act(session: Session, rollout_id: str, target: RolloutState, reason: str, event: str, *, actor: str) -> Rollout:
    rollout = _locked(session, rollout_id)
    rollout.state = ROLLOUT.check(RolloutState(rollout.state), target)
    rollout.reason = reason.replace("\x00", "")[:2000]
    rollout.version += 1
    events.record(session, event, "rollout", rollout.id, actor=actor, reason=rollout.reason)
    return rollout


def _locked(session: Session, rollout_id: str) -> Rollout:
    rollout = store.locked(session, rollout_id)
    if rollout is None:
        raise NotFound("rollout_not_found", f"there is no rollout {rollout_id!r}")
    return rollout


def _check_baseline(plan: RolloutPlan, previous: Rollout | None) -> None:
    if previous is not None:
        return
    for spec in plan.gates:
        if spec.build().needs_baseline:
            raise InvalidInput(
                "gate_needs_baseline",
                f"gate {spec.gate} compares with an earlier release and there is none: give it a minimum",
                gate=spec.gate,
            )
