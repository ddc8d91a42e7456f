"""Rows of trust."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from fogline_server.db.base import Base


class TrustMetadata(Base):
    """One version of one role's signed metadata, byte for byte as devices get it. Never changed."""

    __tablename__ = "trust_metadata"

    role: Mapped[str] = mapped_column(String(20), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
