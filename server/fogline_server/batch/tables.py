"""Rows of offline batch inference."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from fogline_server.db.base import Base


class Shard(Base):
    """A contiguous piece of a batch job's input. Its output is one blob; committing it twice is impossible."""

    __tablename__ = "batch_shards"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    # The child job that computes it.
    shard_job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    first_row: Mapped[int] = mapped_column(BigInteger)
    rows: Mapped[int] = mapped_column(BigInteger)
    output_digest: Mapped[str | None] = mapped_column(String(64))
    finished_at: Mapped[datetime | None]
