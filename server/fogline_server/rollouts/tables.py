"""Rows of rollouts and of what each device should run."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fogline_server.db.base import Base


class Rollout(Base):
    """The plan to move devices to a release, and how far it is."""

    __tablename__ = "rollouts"

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"))
    # The artifact that the plan's variant names; releases are immutable.
    variant: Mapped[str] = mapped_column(String(40))
    artifact_digest: Mapped[str] = mapped_column(String(64))
    artifact_size: Mapped[int] = mapped_column(BigInteger)
    # What the fleet was promoted to before; None: nothing. Each assignment knows what its own device returns to.
    previous_release_id: Mapped[str | None] = mapped_column(ForeignKey("releases.id"))
    recipe: Mapped[str] = mapped_column(String(80))
    state: Mapped[str] = mapped_column(String(20), index=True)
    # A validated RolloutPlan as JSON: stages, gates, soak, timeouts, tags, variant, probation.
    plan: Mapped[dict[str, Any]]
    start_at: Mapped[datetime | None]
    current_stage: Mapped[int] = mapped_column(default=0)
    # Why it stands where it stands: a pause, a failed gate, what it waits for.
    reason: Mapped[str] = mapped_column(String(2000), default="")
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    # When a rollback no longer waits for devices to confirm it.
    rollback_until: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Stage(Base):
    """One step of a rollout: up to which share of the fleet, and what its gates saw."""

    __tablename__ = "stages"

    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    percent: Mapped[float]
    # [{"gate": "error_rate", "verdict": "PASS", "observed": …, "limit": …, "reason": …}, …]
    evidence: Mapped[list[Any]]
    started_at: Mapped[datetime | None]
    # When the present state (ADMITTING, EVALUATING) has lasted too long.
    deadline_at: Mapped[datetime | None]
    soak_until: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class Assignment(Base):
    """One device's part in a rollout. ``stage`` is one past the last for a device that catches up afterwards."""

    __tablename__ = "assignments"
    __table_args__ = (UniqueConstraint("rollout_id", "device_id"), Index("ix_assignments_device", "device_id"))

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    rollout_id: Mapped[str] = mapped_column(ForeignKey("rollouts.id"))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    stage: Mapped[int]
    state: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int] = mapped_column(default=1)
    code: Mapped[str] = mapped_column(String(100), default="")
    message: Mapped[str] = mapped_column(String(2000), default="")
    # What the device should have run when it was assigned, and returns to; empty digest: no model.
    previous_release_id: Mapped[str | None] = mapped_column(ForeignKey("releases.id"))
    previous_variant: Mapped[str] = mapped_column(String(40), default="")
    previous_digest: Mapped[str] = mapped_column(String(64), default="")
    previous_size: Mapped[int] = mapped_column(BigInteger, default=0)
    # The last report taken: only a higher seq of the same boot follows.
    report_boot_id: Mapped[str] = mapped_column(String(60), default="")
    report_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    # Bytes of the artifact, or of deltas that lead to it, that were sent to the device.
    wire_bytes: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Desired(Base):
    """What a device should run. Generations grow by one per change of this row."""

    __tablename__ = "desired"

    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    generation: Mapped[int] = mapped_column(BigInteger)
    release_id: Mapped[str | None] = mapped_column(ForeignKey("releases.id"))
    variant: Mapped[str] = mapped_column(String(40), default="")
    artifact_digest: Mapped[str] = mapped_column(String(64), default="")
    artifact_size: Mapped[int] = mapped_column(BigInteger, default=0)
    assignment_id: Mapped[str] = mapped_column(String(60), default="")
    # The assignment's attempt; one more when the assignment is taken back.
    attempt: Mapped[int] = mapped_column(default=0)
    probation_s: Mapped[float] = mapped_column(default=5.0)
    updated_at: Mapped[datetime]
