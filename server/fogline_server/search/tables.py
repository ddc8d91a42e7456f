"""Rows of compression searches."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from fogline_server.db.base import Base


class Search(Base):
    """A search over the compressed forms of a release's student. How far it is says its job."""

    __tablename__ = "compression_searches"

    id: Mapped[str] = mapped_column(String(60), primary_key=True)
    release_id: Mapped[str] = mapped_column(ForeignKey("releases.id"))
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    spec: Mapped[dict[str, Any]]
    # Candidates, front, pick and reasons; None: it has not ended well.
    result: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class Candidate(Base):
    """What a chain made of a student, by everything that went into it: found again, it is not made again."""

    __tablename__ = "compression_candidates"

    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    chain: Mapped[list[Any]]
    # None: the chain made nothing, and ``error`` says why.
    digest: Mapped[str | None] = mapped_column(String(64), index=True)
    size: Mapped[int | None] = mapped_column(BigInteger)
    metrics: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    created_at: Mapped[datetime]


class Trial(Base):
    """A candidate at a rung of a search."""

    __tablename__ = "compression_trials"

    search_id: Mapped[str] = mapped_column(ForeignKey("compression_searches.id"), primary_key=True)
    # Place of its chain in the space.
    number: Mapped[int] = mapped_column(primary_key=True)
    rung: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), index=True)
    # The child job that makes it; None: it was there already.
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"))
