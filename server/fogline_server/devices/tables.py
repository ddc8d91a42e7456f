"""Rows of the fleet."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from fogline_server.db.base import Base


class Device(Base):
    """One enrolled edge agent. Online is ``lease_until > now``, never a stored state."""

    __tablename__ = "devices"

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    name: Mapped[str] = mapped_column(String(63), unique=True)
    # Flower's node id; below 2**63, since SQL integers are signed.
    node_id: Mapped[int] = mapped_column(BigInteger, unique=True)
    device_class: Mapped[str] = mapped_column(String(40), default="generic")
    state: Mapped[str] = mapped_column(String(20))
    tags: Mapped[list[str]]
    attributes: Mapped[dict[str, Any]]
    recipes: Mapped[list[str]]
    agent_version: Mapped[str] = mapped_column(String(40), default="")
    certificate_serial: Mapped[str | None] = mapped_column(String(60))
    certificate_until: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    boot_id: Mapped[str] = mapped_column(String(60), default="")
    report_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    # What the device says it runs.
    active_digest: Mapped[str] = mapped_column(String(64), default="")
    active_generation: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime | None]
    # When its last reply to a training task came in.
    last_trained_at: Mapped[datetime | None]
    # What it last said of its inputs: {"artifact_digest", "psi": {feature: …}, "inputs", "at", "above": reports in a row}
    drift: Mapped[dict[str, Any] | None]
    # Since when it has been known to drift; None: it does not.
    drifting_since: Mapped[datetime | None]


class EnrollmentToken(Base):
    """A single-use right to enrol. Only the hash of the secret is stored."""

    __tablename__ = "enrollment_tokens"

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    secret_hash: Mapped[str] = mapped_column(String(64))
    # When set, only a device of this name may use it.
    device_name: Mapped[str | None] = mapped_column(String(63))
    tags: Mapped[list[str]]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]
    used_by: Mapped[str | None] = mapped_column(String(60))
    created_at: Mapped[datetime]
