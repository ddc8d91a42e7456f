"""Use cases of API keys: make, list, revoke, authenticate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.access.keys import KeyRing, PrintedKey, Role
from fogline_server.access.tables import ApiKey
from fogline_server.db import events
from fogline_shared.errors import Conflict, InvalidInput, NotFound, Unauthenticated

# The console sets it; the API reads it.
SESSION_COOKIE = "fogline_session"


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who is asking."""

    key_id: str
    name: str
    role: Role

    @property
    def actor(self) -> str:
        """How the event log names it."""
        return f"{self.name} ({self.key_id})"


def authenticate(session: Session, ring: KeyRing, text: str) -> Principal:
    """Who holds this key; raises Unauthenticated ``invalid_api_key``, ``api_key_revoked``."""
    try:
        key = PrintedKey.parse(text)
    except InvalidInput as error:
        raise Unauthenticated("invalid_api_key", error.message) from error
    row = session.get(ApiKey, key.key_id)
    if row is None or not ring.matches(key, row.secret_hash):
        raise Unauthenticated("invalid_api_key", "no such API key")
    return _principal(row)


def authenticate_session(session: Session, ring: KeyRing, text: str, *, now: datetime) -> Principal:
    """Who a console session belongs to; raises Unauthenticated as :meth:`KeyRing.open_session` or for a revoked key."""
    row = session.get(ApiKey, ring.open_session(text, now=now))
    if row is None:
        raise Unauthenticated("session_invalid", "the session's key does not exist")
    return _principal(row)


def _principal(row: ApiKey) -> Principal:
    if row.revoked_at is not None:
        raise Unauthenticated("api_key_revoked", f"the API key {row.name!r} was revoked")
    return Principal(key_id=row.id, name=row.name, role=Role(row.role))


def create_key(
    session: Session, ring: KeyRing, *, name: str, role: Role, now: datetime, actor: str = events.SYSTEM
) -> tuple[ApiKey, PrintedKey]:
    """A new key and its row. The printed form exists only in this answer."""
    key = PrintedKey.new()
    row = _add(session, ring, key, name=name, role=role, now=now)
    events.record(session, "api_key.created", "api_key", row.id, actor=actor, name=name, role=str(role))
    return row, key


def ensure_key(session: Session, ring: KeyRing, key: PrintedKey, *, name: str, now: datetime) -> None:
    """Make the given admin key known. A key that is already known stays as it is, revoked or not."""
    if session.get(ApiKey, key.key_id) is None:
        _add(session, ring, key, name=name, role=Role.ADMIN, now=now)
        events.record(session, "api_key.created", "api_key", key.key_id, name=name, role=str(Role.ADMIN))


def _add(session: Session, ring: KeyRing, key: PrintedKey, *, name: str, role: Role, now: datetime) -> ApiKey:
    row = ApiKey(id=key.key_id, name=name, secret_hash=ring.hash(key), role=str(role), created_at=now, revoked_at=None)
    session.add(row)
    session.flush()
    return row


def has_admin(session: Session) -> bool:
    """Whether anybody can administer."""
    usable = select(ApiKey.id).where(ApiKey.role == str(Role.ADMIN), ApiKey.revoked_at.is_(None))
    return session.scalar(usable.limit(1)) is not None


def list_keys(session: Session, *, after: str | None = None, limit: int = 50) -> Sequence[ApiKey]:
    """Keys, newest first; ``after`` is the id the previous page ended with."""
    query = select(ApiKey).order_by(ApiKey.id.desc()).limit(limit)
    return session.scalars(query.where(ApiKey.id < after) if after else query).all()


def get_key(session: Session, key_id: str) -> ApiKey:
    """One key; raises NotFound ``api_key_not_found``."""
    row = session.get(ApiKey, key_id)
    if row is None:
        raise NotFound("api_key_not_found", f"no API key {key_id}")
    return row


def revoke_key(session: Session, key_id: str, *, now: datetime, actor: str) -> ApiKey:
    """End a key, once and for all; again is harmless. Raises Conflict ``last_admin_key``: somebody must stay."""
    row = get_key(session, key_id)
    if row.revoked_at is not None:
        return row
    row.revoked_at = now
    session.flush()
    if not has_admin(session):
        raise Conflict("last_admin_key", "the last admin key cannot be revoked: make another one first")
    events.record(session, "api_key.revoked", "api_key", row.id, actor=actor, name=row.name)
    return row
