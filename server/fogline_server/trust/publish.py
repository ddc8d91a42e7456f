"""Sign what devices may install: release → snapshot → timestamp, as rows in the caller's transaction.

Versions are Unix seconds, or one more than the last: a database restored from a backup is ahead of every device at its next
signature, instead of being refused as a rollback.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from fogline_server.registry.provenance import seal_of
from fogline_server.registry.tables import Release, Variant
from fogline_server.trust import store
from fogline_server.trust.keys import OnlineKeys
from fogline_server.trust.model import (
    LIFETIMES,
    ONLINE,
    RELEASE,
    RENEW_BELOW,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    Listed,
)
from fogline_server.trust.tables import TrustMetadata
from fogline_shared.states import ReleaseState

log = structlog.get_logger()

T = TypeVar("T", Root, Targets)


def publish(session: Session, keys: OnlineKeys, listed: Iterable[Listed], *, now: datetime) -> bool:
    """List artifacts, beside those that are; False while there is no root, and then the first import lists them.

    Raises Unavailable ``trust_key_missing``.
    """
    if not store.lock(session):
        return False
    before = store.newest(session, RELEASE)
    assert before is not None  # written with the first root
    release = Metadata[Targets].from_bytes(before.body).signed
    release.targets |= {each.path: _target(each) for each in listed}
    _sign_all(session, keys, release, now=now)
    return True


def republish(session: Session, keys: OnlineKeys, *, now: datetime) -> None:
    """List what the registry says, and nothing else: after a key was lost, what a thief has signed is gone.

    A release whose rows no longer match its seal is left out.
    """
    release = Targets()
    release.targets = {each.path: _target(each) for each in _sealed(session)}
    _sign_all(session, keys, release, now=now)


def renew(session: Session, keys: OnlineKeys, *, now: datetime) -> list[str]:
    """Sign anew what has less than half of its life left, and what names it; return the roles."""
    if not due(session, now=now) or not store.lock(session):
        return []
    roles = due(session, now=now)  # another replica may have done it while this one waited for its turn
    if RELEASE in roles:
        row = store.newest(session, RELEASE)
        assert row is not None
        _sign_all(session, keys, Metadata[Targets].from_bytes(row.body).signed, now=now)
    elif SNAPSHOT in roles:
        _sign_snapshot(session, keys, now=now)
    elif TIMESTAMP in roles:
        _sign_timestamp(session, keys, now=now)
    return roles


def due(session: Session, *, now: datetime) -> list[str]:
    """The online roles whose signature is past half of its life."""
    rows = {role: store.newest(session, role) for role in ONLINE}
    return [role for role, row in rows.items() if row and row.expires_at - now < RENEW_BELOW * LIFETIMES[role]]


def listing(release: Release, variants: Iterable[Variant]) -> list[Listed]:
    """A release's artifacts as targets."""
    return [
        Listed(release_id=release.id, variant=v.name, digest=v.digest, size=v.size, recipe=release.recipe)
        for v in variants
    ]


def _sealed(session: Session) -> Iterator[Listed]:
    rows = session.scalars(select(Variant).order_by(Variant.release_id, Variant.name))
    variants: dict[str, list[Variant]] = {}
    for row in rows:
        variants.setdefault(row.release_id, []).append(row)
    for release in session.scalars(select(Release).where(Release.state == ReleaseState.READY)):
        mine = variants.get(release.id, [])
        if release.lineage.get("seal") != seal_of(release, mine):
            log.warning("release not listed: it is not what was sealed", release=release.id)
            continue
        yield from listing(release, mine)


def _target(listed: Listed) -> TargetFile:
    return TargetFile(listed.size, {"sha256": listed.digest}, listed.path, {"custom": listed.custom})


def _sign_all(session: Session, keys: OnlineKeys, release: Targets, *, now: datetime) -> None:
    targets = _current(session, TARGETS, Targets)
    assert targets.delegations is not None  # import takes no others
    assert targets.delegations.roles is not None
    _sign(session, keys, RELEASE, release, targets.delegations.roles[RELEASE].keyids, now=now)
    _sign_snapshot(session, keys, now=now)


def _sign_snapshot(session: Session, keys: OnlineKeys, *, now: datetime) -> None:
    snapshot = Snapshot(meta={f"{role}.json": _described(session, role) for role in (TARGETS, RELEASE)})
    root = _current(session, ROOT, Root)
    _sign(session, keys, SNAPSHOT, snapshot, root.roles[SNAPSHOT].keyids, now=now)
    _sign_timestamp(session, keys, now=now)


def _sign_timestamp(session: Session, keys: OnlineKeys, *, now: datetime) -> None:
    timestamp = Timestamp(snapshot_meta=_described(session, SNAPSHOT))
    root = _current(session, ROOT, Root)
    _sign(session, keys, TIMESTAMP, timestamp, root.roles[TIMESTAMP].keyids, now=now)


def _sign(
    session: Session, keys: OnlineKeys, role: str, signed: Signed, keyids: Iterable[str], *, now: datetime
) -> None:
    before = store.newest(session, role)
    signed.version = max(before.version + 1 if before else 1, int(now.timestamp()))
    signed.expires = (now + LIFETIMES[role]).replace(microsecond=0)
    document: Metadata[Any] = Metadata(signed)
    document.sign(keys.signer_for(role, keyids))
    store.add(session, document, role, document.to_bytes(), now=now)
    session.flush()
    store.prune(session, role)


def _current(session: Session, role: str, kind: type[T]) -> T:
    row = store.newest(session, role)
    assert row is not None
    signed = Metadata[Any].from_bytes(row.body).signed
    assert isinstance(signed, kind)
    return signed


def _described(session: Session, role: str) -> MetaFile:
    row: TrustMetadata | None = store.newest(session, role)
    assert row is not None
    return MetaFile.from_data(row.version, row.body, ["sha256"])
