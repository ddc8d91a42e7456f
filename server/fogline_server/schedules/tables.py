"""Rows of schedules."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.orm import Mapped, mapped_column

from fogline_server.db.base import Base


class Schedule(Base):
    """Starts a run, a rollout or a job, once (``at``) or by cron in a time zone."""

    __tablename__ = "schedules"

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    cron: Mapped[str | None] = mapped_column(String(80))
    time_zone: Mapped[str] = mapped_column(String(60), default="UTC")
    at: Mapped[datetime | None]
    # run, rollout or job
    action: Mapped[str] = mapped_column(String(20))
    spec: Mapped[dict[str, Any]]
    # misfire: fire_once or skip; overlap: skip or allow
    misfire: Mapped[str] = mapped_column(String(20), default="fire_once")
    overlap: Mapped[str] = mapped_column(String(20), default="skip")
    enabled: Mapped[bool] = mapped_column(default=True)
    next_at: Mapped[datetime | None]
    last_at: Mapped[datetime | None]
    # What the last firing started (run, rollout or job id), or why it did not.
    last_result: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
