"""Rows of the registry."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from fogline_server.db.base import Base


class Release(Base):
    """A model version. Immutable once READY."""

    __tablename__ = "releases"

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    recipe: Mapped[str] = mapped_column(String(80))
    state: Mapped[str] = mapped_column(String(20))
    # Where it comes from: runs, parameter digests, or the file it was imported from.
    lineage: Mapped[dict[str, Any]]
    # What was compared and chosen: control against distilled, by how much, on what data.
    report: Mapped[dict[str, Any]]
    # The variant a device gets unless its class says otherwise.
    default_variant: Mapped[str] = mapped_column(String(40), default="")
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]
    sealed_at: Mapped[datetime | None]


class Variant(Base):
    """One form of a release: its artifact and what was measured of it."""

    __tablename__ = "variants"

    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"), primary_key=True)
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    # accuracy, worst_class_accuracy, confusion, p50_us, bytes_zstd … through ONNX Runtime
    metrics: Mapped[dict[str, Any] | None]


class Delta(Base):
    """How to make one artifact of another; ``base_digest`` is all zeros where it is made of nothing, which is compression."""

    __tablename__ = "deltas"

    target_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    base_digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    # The blob, whose size decides what a device is offered.
    digest: Mapped[str] = mapped_column(String(64), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    target_size: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime]


class Alias(Base):
    """A movable name on a release (champion, candidate)."""

    __tablename__ = "aliases"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"))
    moved_at: Mapped[datetime]


class Measurement(Base):
    """What a device was asked to measure of a variant, and what it answered; the device is offered it until it has, or it expires."""

    __tablename__ = "measurements"
    __table_args__ = (Index("ix_measurements_device_state", "device_id", "state"),)

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"), index=True)
    variant: Mapped[str] = mapped_column(String(40))
    digest: Mapped[str] = mapped_column(String(64))
    size: Mapped[int] = mapped_column(BigInteger)
    device_id: Mapped[str] = mapped_column(ForeignKey("devices.id"))
    # The device's class when it was asked: figures are of that class, whatever the device becomes.
    device_class: Mapped[str] = mapped_column(String(40))
    state: Mapped[str] = mapped_column(String(20))
    # p50_us, p99_us, load_ms, memory_bytes … (fogline_shared.measurement)
    metrics: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    asked_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]
