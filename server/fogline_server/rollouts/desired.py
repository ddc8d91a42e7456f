"""What each device should run: one row a device, whose generation grows with every change.

A rollout writes it, the gateway sends it, the device converges. Rolling back is writing the earlier artifact under a
higher generation; devices know no other way.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from fogline_server.devices.tables import Device
from fogline_server.rollouts.tables import Assignment, Desired, Rollout
from fogline_shared.protocol import DesiredState


@dataclass(frozen=True, kw_only=True)
class Target:
    """One artifact of one release; an empty digest means: run no model."""

    release_id: str | None = None
    variant: str = ""
    digest: str = ""
    size: int = 0


NO_MODEL = Target()
# Above any generation that can come about; a device that claims more is not believed.
_LARGEST_GENERATION = 2**62


def desired_of(session: Session, device_ids: Collection[str]) -> dict[str, DesiredState]:
    """What to tell the devices; without those to which nothing was ever rolled out."""
    rows = session.scalars(select(Desired).where(Desired.device_id.in_(device_ids)))
    return {row.device_id: _told(row) for row in rows}


def _told(row: Desired) -> DesiredState:
    return DesiredState(
        generation=row.generation,
        artifact_digest=row.artifact_digest,
        artifact_size=row.artifact_size,
        assignment_id=row.assignment_id,
        attempt=row.attempt,
        release_id=row.release_id or "",
        variant=row.variant,
        probation_s=row.probation_s,
    )


def reads(session: Session, device_id: str, digest: str) -> bool:
    """Whether the device may fetch the blob because it should run it."""
    row = session.get(Desired, device_id)
    return row is not None and bool(digest) and row.artifact_digest == digest


def count_sent(session: Session, assignment_id: str, sent: int) -> None:
    """Add bytes that were sent to a device to what its assignment took over the wire."""
    session.execute(
        update(Assignment)
        .where(Assignment.id == assignment_id)
        .values(wire_bytes=Assignment.wire_bytes + sent)
        .execution_options(synchronize_session=False)
    )


def target_of(row: Desired | None) -> Target:
    """The artifact a row names."""
    if row is None:
        return NO_MODEL
    return Target(release_id=row.release_id, variant=row.variant, digest=row.artifact_digest, size=row.artifact_size)


def point(
    session: Session,
    device: Device,
    target: Target,
    *,
    assignment_id: str,
    attempt: int,
    probation_s: float,
    now: datetime,
) -> Target:
    """Point the device at ``target`` under its next generation; return what it was pointed at before.

    The generation also passes the one the device says it has, so that a restored database cannot strand a device.
    """
    row = session.get(Desired, device.id, with_for_update=True, populate_existing=True)
    before = target_of(row)
    if row is None:
        row = Desired(device_id=device.id, generation=0, updated_at=now)
        session.add(row)
    row.generation = max(row.generation, min(device.active_generation, _LARGEST_GENERATION)) + 1
    row.release_id, row.variant = target.release_id, target.variant
    row.artifact_digest, row.artifact_size = target.digest, target.size
    row.assignment_id, row.attempt = assignment_id, attempt
    row.probation_s, row.updated_at = probation_s, now
    session.flush()
    return before


def take_back(session: Session, assignment: Assignment, *, now: datetime) -> bool:
    """Point the device at what it ran before this assignment.

    Return False when something else (a take-back, a later rollout) has moved it on already; what comes later then no
    longer returns to this assignment's artifact, but to what was before it.
    """
    row = session.get(Desired, assignment.device_id, with_for_update=True, populate_existing=True)
    if row is None or (row.assignment_id, row.attempt) != (assignment.id, assignment.attempt):
        _take_out(session, assignment)
        return False
    device = session.get_one(Device, assignment.device_id)
    previous = Target(
        release_id=assignment.previous_release_id,
        variant=assignment.previous_variant,
        digest=assignment.previous_digest,
        size=assignment.previous_size,
    )
    point(
        session,
        device,
        previous,
        assignment_id=assignment.id,
        attempt=assignment.attempt + 1,
        probation_s=row.probation_s,
        now=now,
    )
    return True


def _take_out(session: Session, assignment: Assignment) -> None:
    """Make the device's later assignments return to what this one would have returned to."""
    rollout = session.get_one(Rollout, assignment.rollout_id)
    session.execute(
        update(Assignment)
        .where(
            Assignment.device_id == assignment.device_id,
            Assignment.created_at >= assignment.created_at,
            Assignment.id != assignment.id,
            Assignment.previous_release_id == rollout.release_id,
            Assignment.previous_digest == rollout.artifact_digest,
        )
        .values(
            previous_release_id=assignment.previous_release_id,
            previous_variant=assignment.previous_variant,
            previous_digest=assignment.previous_digest,
            previous_size=assignment.previous_size,
        )
    )
