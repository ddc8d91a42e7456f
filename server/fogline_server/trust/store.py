"""Queries of trust."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, func, select
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata

from fogline_server.trust.model import ROOT, TIMESTAMP, parse_name
from fogline_server.trust.tables import TrustMetadata
from fogline_shared.errors import NotFound, Unavailable

# Older versions that devices in the middle of a refresh may still ask for.
_KEPT = 10


def newest(session: Session, role: str) -> TrustMetadata | None:
    """The role's newest row."""
    query = select(TrustMetadata).where(TrustMetadata.role == role).order_by(TrustMetadata.version.desc()).limit(1)
    return session.scalars(query).one_or_none()


def newest_of(session: Session, roles: Collection[str]) -> Mapping[str, TrustMetadata]:
    """The newest row of each role that has one."""
    last = select(TrustMetadata.role, func.max(TrustMetadata.version).label("version"))
    last_of = last.where(TrustMetadata.role.in_(roles)).group_by(TrustMetadata.role).subquery()
    same = and_(TrustMetadata.role == last_of.c.role, TrustMetadata.version == last_of.c.version)
    return {row.role: row for row in session.scalars(select(TrustMetadata).join(last_of, same))}


def at(session: Session, role: str, version: int) -> TrustMetadata | None:
    """One version of a role."""
    return session.get(TrustMetadata, (role, version))


def lock(session: Session) -> bool:
    """Take turns with other replicas until this transaction ends; False while there is no root."""
    # Version 1 is always there and never changes; a newer row might not be seen after the wait.
    first = select(TrustMetadata).where(TrustMetadata.role == ROOT, TrustMetadata.version == 1)
    return session.scalars(first.with_for_update()).one_or_none() is not None


def add(session: Session, document: Metadata[Any], role: str, body: bytes, *, now: datetime) -> None:
    """Keep one more version."""
    session.add(
        TrustMetadata(
            role=role,
            version=document.signed.version,
            body=body,
            created_at=now,
            expires_at=document.signed.expires,
        )
    )


def prune(session: Session, role: str) -> None:
    """Drop what no device will ask for: all but an online role's last versions."""
    kept = select(TrustMetadata.version).where(TrustMetadata.role == role)
    kept = kept.order_by(TrustMetadata.version.desc()).limit(_KEPT)
    session.execute(
        delete(TrustMetadata).where(TrustMetadata.role == role, TrustMetadata.version.not_in(kept.scalar_subquery()))
    )


def forget_all(session: Session) -> None:
    """Drop every version of every role."""
    session.execute(delete(TrustMetadata))


def document(session: Session, name: str) -> bytes:
    """Metadata by its name on the wire: ``timestamp.json``, ``root.json`` (newest) or ``<version>.<role>.json``.

    Raises InvalidInput ``bad_metadata_name``, NotFound ``metadata_not_found``, Unavailable ``trust_not_set_up``.
    """
    role, version = parse_name(name)
    if version is None:
        row = newest(session, role) if role in (ROOT, TIMESTAMP) else None
    else:
        row = at(session, role, version)
    if row is not None:
        return row.body
    if newest(session, ROOT) is None:
        raise Unavailable("trust_not_set_up", "the coordinator has no root of trust yet; see `fogline trust init`")
    raise NotFound("metadata_not_found", f"no metadata {name!r}", name=name)
