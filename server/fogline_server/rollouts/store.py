"""Queries of rollouts: who is meant, who is reachable, who was given what."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime

from sqlalchemy import false, or_, select, text
from sqlalchemy.orm import Session

from fogline_server.devices.tables import Device
from fogline_server.registry.service import get_variant, ready_release
from fogline_server.registry.tables import Release
from fogline_server.rollouts.desired import Target
from fogline_server.rollouts.tables import Assignment, Rollout
from fogline_shared.states import DeviceState, RolloutState

# A rollout that still moves devices, or is about to.
UNFINISHED = (RolloutState.RUNNING, RolloutState.PAUSED, RolloutState.ROLLING_BACK)
# One number for all coordinators on one PostgreSQL. Two locks: a start may wait for rollouts' rows, an admission
# holds one.
_STARTS, _ADMISSIONS = 0x466F676C, 0x466F676D


def lock_starts(session: Session) -> None:
    """Let one transaction at a time decide which rollouts are running."""
    _alone(session, _STARTS)


def lock_admissions(session: Session) -> None:
    """Let one transaction at a time choose devices, so that no two rollouts choose the same one."""
    _alone(session, _ADMISSIONS)


def _alone(session: Session, key: int) -> None:
    """SQLite writers are alone anyway."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


def locked(session: Session, rollout_id: str, *, skip: bool = False) -> Rollout | None:
    """The rollout, locked until the transaction ends; with ``skip``, None while another replica holds it."""
    query = select(Rollout).where(Rollout.id == rollout_id).with_for_update(skip_locked=skip)
    return session.scalar(query.execution_options(populate_existing=True))


def artifact(session: Session, release_id: str, variant: str) -> tuple[Release, Target]:
    """The release and the artifact of one of its variants (empty: the default one).

    Raises NotFound ``release_not_found``, ``variant_not_found``, ``variant_left_out``; Conflict ``release_not_ready``, ``release_unlisted``.
    """
    release = ready_release(session, release_id)
    row = get_variant(session, release.id, variant or release.default_variant)
    return release, Target(release_id=release.id, variant=row.name, digest=row.digest, size=row.size)


def meant(session: Session, *, recipe: str, tags: Collection[str]) -> list[Device]:
    """The active devices a rollout is for."""
    active = session.scalars(select(Device).where(Device.state == DeviceState.ACTIVE).order_by(Device.id))
    return for_whom(active, recipe=recipe, tags=tags)


def for_whom(devices: Iterable[Device], *, recipe: str, tags: Collection[str]) -> list[Device]:
    """Those that have every tag and, if they name recipes at all, this one: a device may infer what it cannot train."""
    return [d for d in devices if set(tags) <= set(d.tags) and (not d.recipes or recipe in d.recipes)]


def online(device: Device, now: datetime) -> bool:
    """Whether the device's lease holds."""
    return device.lease_until is not None and device.lease_until > now


def admission_order(rollout_id: str, devices: Collection[Device]) -> list[Device]:
    """A different, but repeatable, order for each rollout, so that no device is always the canary."""
    return sorted(devices, key=lambda d: hashlib.sha256(f"{rollout_id}/{d.id}".encode()).digest())


def assignments(session: Session, rollout_id: str, *, stage: int | None = None) -> Sequence[Assignment]:
    """All of a rollout or of one stage."""
    query = select(Assignment).where(Assignment.rollout_id == rollout_id)
    if stage is not None:
        query = query.where(Assignment.stage == stage)
    return session.scalars(query.order_by(Assignment.id)).all()


def ways_back(session: Session, rollout_id: str) -> Sequence[str]:
    """The releases that a rollout's devices would return to."""
    back = Assignment.previous_release_id
    query = select(back).where(Assignment.rollout_id == rollout_id, back.is_not(None)).distinct().order_by(back)
    return [release_id for release_id in session.scalars(query) if release_id is not None]


def promoted(session: Session, *, recipe: str, tags: Collection[str]) -> Rollout | None:
    """The succeeded rollout whose release the devices of this scope have now; the latest if several."""
    succeeded = select(Rollout).where(Rollout.state == RolloutState.SUCCEEDED, Rollout.recipe == recipe)
    for rollout in session.scalars(succeeded.order_by(Rollout.finished_at.desc(), Rollout.id.desc())):
        if set(rollout.plan["tags"]) <= set(tags):
            return rollout
    return None


def current(session: Session) -> list[Rollout]:
    """Succeeded rollouts, newest first, whose devices no newer one covers entirely: devices that come later get theirs."""
    succeeded = select(Rollout).where(Rollout.state == RolloutState.SUCCEEDED)
    found: list[Rollout] = []
    for rollout in session.scalars(succeeded.order_by(Rollout.finished_at.desc(), Rollout.id.desc())):
        tags = set(rollout.plan["tags"])
        if not any(n.recipe == rollout.recipe and set(n.plan["tags"]) <= tags for n in found):
            found.append(rollout)
    return found


def in_the_way(
    session: Session, *, recipe: str, tags: Collection[str], but: str = "", due: datetime | None = None
) -> Sequence[Rollout]:
    """Unfinished rollouts that move some of the same devices; with ``due``, also those about to start by then."""
    moving = or_(
        Rollout.state.in_(UNFINISHED),
        false() if due is None else (Rollout.state == RolloutState.SCHEDULED) & (Rollout.start_at <= due),
    )
    ours = {d.id for d in meant(session, recipe=recipe, tags=tags)}
    others = session.scalars(select(Rollout).where(moving, Rollout.id != but).order_by(Rollout.id))
    return [
        other
        for other in others
        if (other.recipe == recipe and set(other.plan["tags"]) == set(tags))
        or ours & {d.id for d in meant(session, recipe=other.recipe, tags=other.plan["tags"])}
    ]
