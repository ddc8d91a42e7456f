"""Rows of federated training."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from fogline_server.db.base import Base


class Run(Base):
    """One federated training of one model size."""

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    recipe: Mapped[str] = mapped_column(String(80))
    size: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(20))
    # A validated RunSpec as JSON: rounds, strategy and options, plan, cohort, seed, distil_from, init_from …
    spec: Mapped[dict[str, Any]]
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
    rounds_total: Mapped[int]
    rounds_done: Mapped[int] = mapped_column(default=0)
    # Standardisation from the federated sums, once known.
    statistics: Mapped[dict[str, Any] | None]
    # Parameters after the last committed round, and the strategy's own state.
    params_digest: Mapped[str | None] = mapped_column(String(64))
    strategy_state_digest: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class Round(Base):
    """One pass over a cohort. Number 0 gathers statistics.

    ``attempts``: cohorts that failed before the present one, each with its times, code and message. ``pace``: how many the
    present one is for and until when; None: as the run's spec says. ``error``: why the round's result is not used.
    """

    __tablename__ = "rounds"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(20))
    cohort: Mapped[list[str]]
    params_in: Mapped[str | None] = mapped_column(String(64))
    params_out: Mapped[str | None] = mapped_column(String(64))
    metrics: Mapped[dict[str, Any]]
    attempts: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    pace: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    started_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]


class Task(Base):
    """One Flower message to one device in one round. Sent again until it is answered or its deadline passes."""

    __tablename__ = "tasks"
    __table_args__ = (
        UniqueConstraint("run_id", "round", "attempt", "kind", "device_id"),
        Index("ix_tasks_device_open", "device_id", "closed"),
    )

    id: Mapped[str] = mapped_column(String(80), primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    round: Mapped[int]
    # From 1; a round that failed is tried again with another cohort.
    attempt: Mapped[int] = mapped_column(default=1, server_default="1")
    # query, train or evaluate
    kind: Mapped[str] = mapped_column(String(20))
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    recipe: Mapped[str] = mapped_column(String(80))
    records: Mapped[dict[str, Any]]
    # [{"record": "arrays", "digest": …, "size": …}, …]
    blobs: Mapped[list[Any]]
    message_type: Mapped[str] = mapped_column(String(80))
    group_id: Mapped[str] = mapped_column(String(80))
    node_id: Mapped[int] = mapped_column(BigInteger)
    max_reply_bytes: Mapped[int] = mapped_column(BigInteger)
    deadline: Mapped[datetime]
    # True once answered, expired, or its round is over: no longer offered.
    closed: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]


class Population(Base):
    """The devices with a recipe and all of the tags, and what all runs together may tell of each."""

    __tablename__ = "populations"

    name: Mapped[str] = mapped_column(String(80), primary_key=True)
    recipe: Mapped[str] = mapped_column(String(80))
    tags: Mapped[list[str]]
    epsilon: Mapped[float]
    delta: Mapped[float]
    created_at: Mapped[datetime]


class PrivacyAccount(Base):
    """What a private run has reserved and spent of its population's budget, in rounds."""

    __tablename__ = "privacy_accounts"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    population: Mapped[str] = mapped_column(ForeignKey("populations.name"), index=True)
    noise_multiplier: Mapped[float]
    rounds_reserved: Mapped[int]
    rounds_spent: Mapped[int]
    # False once the run has ended: only what it spent counts.
    open: Mapped[bool]
    # What its noise is drawn from, hexadecimal. Who knows it can take the noise off.
    secret: Mapped[str] = mapped_column(String(64))


class Update(Base):
    """The one reply to a task that counts. The primary key is what makes counting twice impossible."""

    __tablename__ = "updates"

    task_id: Mapped[str] = mapped_column(ForeignKey("tasks.id"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), default="")
    size: Mapped[int] = mapped_column(BigInteger, default=0)
    records: Mapped[dict[str, Any]]
    verdict: Mapped[str | None] = mapped_column(String(20))
    code: Mapped[str] = mapped_column(String(100), default="")
    reason: Mapped[str] = mapped_column(String(2000), default="")
    duplicates: Mapped[int] = mapped_column(default=0)
    received_at: Mapped[datetime]
    # In an asynchronous run: the round that took it from the buffer, by which it is as stale as that is after the task's own.
    step: Mapped[int | None]
