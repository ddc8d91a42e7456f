"""Rows of what devices measured."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fogline_server.db.base import Base


class Window(Base):
    """One telemetry window of one device. The unique key makes a second upload of the same window harmless."""

    __tablename__ = "telemetry_windows"
    __table_args__ = (
        UniqueConstraint("device_id", "boot_id", "seq"),
        Index("ix_telemetry_windows_digest_received", "artifact_digest", "received_at"),
    )

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    boot_id: Mapped[str] = mapped_column(String(60))
    seq: Mapped[int] = mapped_column(BigInteger)
    artifact_digest: Mapped[str] = mapped_column(String(64))
    # The device's own clock; whatever decides looks at received_at.
    start_at: Mapped[datetime]
    end_at: Mapped[datetime]
    predictions: Mapped[int] = mapped_column(BigInteger)
    errors: Mapped[int] = mapped_column(BigInteger)
    labelled: Mapped[int] = mapped_column(BigInteger)
    correct: Mapped[int] = mapped_column(BigInteger)
    # The confidence sketch's sum (percent) and count again, so that gates add them up in SQL.
    confidence_sum: Mapped[float]
    confidence_count: Mapped[int] = mapped_column(BigInteger)
    # {"latency_us": {"counts": […], "sum": …}, "confidence_pct": …, "class_counts": […]}, and where known "drift": {feature: PSI},
    # "drift_inputs": n
    sketches: Mapped[dict[str, Any]]
    dropped_windows: Mapped[int] = mapped_column(BigInteger, default=0)
    received_at: Mapped[datetime]
