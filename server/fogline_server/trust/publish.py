"""Sign what devices may install: release (and its bins) → snapshot → timestamp, as rows in the caller's transaction.

Versions are Unix seconds, or one more than the last: a database restored from a backup is ahead of every device at its next
signature, instead of being refused as a rollback.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import select
from sqlalchemy.orm import Session
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from fogline_server.registry.provenance import seal_of
from fogline_server.registry.tables import Release, Variant
from fogline_server.trust import catalogue, store
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


def publish(session: Session, keys: OnlineKeys, listed: Iterable[Listed], *, now: datetime) -> bool:
    """List artifacts, beside those that are; False while there is no root, and then the first import lists them.

    Raises Unavailable ``trust_key_missing``.
    """
    if not store.lock(session):
        return False
    _change(session, keys, listed, there=True, now=now)
    return True


def withdraw(session: Session, keys: OnlineKeys, listed: Iterable[Listed], *, now: datetime) -> bool:
    """List these artifacts no more; False while there is no root. Raises as :func:`publish`."""
    if not store.lock(session):
        return False
    _change(session, keys, listed, there=False, now=now)
    return True


def republish(session: Session, keys: OnlineKeys, *, now: datetime) -> None:
    """List what the registry says, and nothing else: after a key was lost, what a thief has signed is gone.

    A release whose rows no longer match its seal is left out.
    """
    _sign_all(session, keys, {each.path: _target(each) for each in _sealed(session)}, now=now)


def renew(session: Session, keys: OnlineKeys, *, now: datetime) -> list[str]:
    """Sign anew what has less than half of its life left, and what names it; return the roles."""
    if not due(session, now=now) or not store.lock(session):
        return []
    roles = due(session, now=now)  # another replica may have done it while this one waited for its turn
    if RELEASE in roles:
        _sign_all(session, keys, catalogue.listed(session), now=now)
    elif SNAPSHOT in roles:
        _sign_snapshot(session, keys, now=now)
    elif TIMESTAMP in roles:
        _sign_timestamp(session, keys, now=now)
    return roles


def due(session: Session, *, now: datetime) -> list[str]:
    """The online roles whose signature is past half of its life. ``release`` stands for its bins: none is signed before it."""
    rows = {role: store.newest(session, role) for role in ONLINE}
    return [role for role, row in rows.items() if row and row.expires_at - now < RENEW_BELOW * LIFETIMES[role]]


def listing(release: Release, variants: Iterable[Variant]) -> list[Listed]:
    """A release's artifacts as targets."""
    return [
        Listed(release_id=release.id, variant=v.name, digest=v.digest, size=v.size, recipe=release.recipe)
        for v in variants
    ]


def _change(session: Session, keys: OnlineKeys, given: Iterable[Listed], *, there: bool, now: datetime) -> None:
    """Sign a list that has the given artifacts, or no longer has them, beside what it has."""

    def changed(before: dict[str, TargetFile], targets: dict[str, TargetFile]) -> dict[str, TargetFile]:
        others = {path: target for path, target in before.items() if path not in targets}
        return others | targets if there else others

    targets = {each.path: _target(each) for each in given}
    cut = catalogue.open_bins(session)
    if cut is None:
        _sign_all(session, keys, changed(catalogue.listed(session), targets), now=now)
        return
    # Only the bins that change are signed, so that no device has to read the others again.
    for name, part in catalogue.in_bins(cut, targets.values()).items():
        part.targets = changed(catalogue.current(session, name, Targets).targets, part.targets)
        _sign(session, keys, name, part, cut.keyids, now=now)
    _sign_snapshot(session, keys, now=now)


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


def _sign_all(session: Session, keys: OnlineKeys, targets: Mapping[str, TargetFile], *, now: datetime) -> None:
    holder, _ = catalogue.release_role(session)
    for role, document in catalogue.documents(session, targets).items():
        _sign(session, keys, role, document, holder.keyids, now=now)
    _sign_snapshot(session, keys, now=now)


def _sign_snapshot(session: Session, keys: OnlineKeys, *, now: datetime) -> None:
    cut = catalogue.bins(session)
    rows = store.newest_of(session, [TARGETS, RELEASE, *(cut.get_roles() if cut else ())])
    snapshot = Snapshot(meta={f"{role}.json": _described(rows[role]) for role in sorted(rows)})
    root = catalogue.current(session, ROOT, Root)
    _sign(session, keys, SNAPSHOT, snapshot, root.roles[SNAPSHOT].keyids, now=now)
    _sign_timestamp(session, keys, now=now)


def _sign_timestamp(session: Session, keys: OnlineKeys, *, now: datetime) -> None:
    snapshot = store.newest(session, SNAPSHOT)
    assert snapshot is not None  # signed with the first root
    root = catalogue.current(session, ROOT, Root)
    timestamp = Timestamp(snapshot_meta=_described(snapshot))
    _sign(session, keys, TIMESTAMP, timestamp, root.roles[TIMESTAMP].keyids, now=now)


def _sign(
    session: Session, keys: OnlineKeys, role: str, signed: Signed, keyids: Iterable[str], *, now: datetime
) -> None:
    holder = role if role in ONLINE else RELEASE  # bins are signed in its name
    before = store.newest(session, role)
    signed.version = max(before.version + 1 if before else 1, int(now.timestamp()))
    signed.expires = (now + LIFETIMES[holder]).replace(microsecond=0)
    document: Metadata[Any] = Metadata(signed)
    document.sign(keys.signer_for(holder, keyids))
    store.add(session, document, role, document.to_bytes(), now=now)
    session.flush()
    store.prune(session, role)


def _described(row: TrustMetadata) -> MetaFile:
    return MetaFile.from_data(row.version, row.body, ["sha256"])
