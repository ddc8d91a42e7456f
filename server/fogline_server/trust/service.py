"""Use cases of trust. Each takes the caller's session and leaves the commit to the caller."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Targets

from fogline_server.db import events
from fogline_server.trust import catalogue, publish, store
from fogline_server.trust.keys import OnlineKeys, name_of
from fogline_server.trust.model import ONLINE, RELEASE, ROOT, SNAPSHOT, TARGETS, TIMESTAMP, parse_document
from fogline_shared.errors import Conflict, InvalidInput

Facts = dict[str, Any]


def import_documents(
    session: Session,
    keys: OnlineKeys,
    documents: Sequence[bytes],
    *,
    begin_anew: bool = False,
    now: datetime,
    actor: str,
) -> Facts:
    """Take root and targets that a ceremony has signed, then sign and list everything anew under them.

    What is here already is passed over. ``begin_anew`` forgets the root that is trusted: devices that began with it
    install nothing more until they enrol again. Raises InvalidInput ``bad_trust_metadata``, ``trust_signatures_missing``,
    ``trust_document_expired``, ``online_key_unknown``; Conflict ``trust_version_gap``, ``trust_other_root``.
    """
    parsed = [(parse_document(data), data) for data in documents]
    taken = []
    store.lock(session)
    if begin_anew:
        store.forget_all(session)
    for document, data in sorted(parsed, key=lambda each: (each[0].signed.type, each[0].signed.version)):
        if document.signed.type == ROOT and _take_root(session, document, data, now=now):
            taken.append(f"{document.signed.version}.{ROOT}")
    root = _root(session)
    for document, data in sorted(parsed, key=lambda each: each[0].signed.version):
        if document.signed.type == TARGETS and _take_targets(session, document, data, now=now):
            taken.append(f"{document.signed.version}.{TARGETS}")
    if taken:
        _check_whole(session, keys, root, now=now)
        publish.republish(session, keys, now=now)
        events.record(session, "trust.imported", "trust", ROOT, actor=actor, documents=taken, begin_anew=begin_anew)
    return {"imported": taken}


def new_online_keys(session: Session, keys: OnlineKeys, *, actor: str) -> None:
    """Make each online role's next key and offer it to the next ceremony; until then nothing changes."""
    keys.renew()
    events.record(session, "trust.online_keys_made", "trust", ROOT, actor=actor)


def status(session: Session, keys: OnlineKeys, *, throwaway: frozenset[str], now: datetime) -> Facts:
    """What is trusted, until when, and by whose keys. ``throwaway``: ids of root keys that lie at the coordinator."""
    row = store.newest(session, ROOT)
    offered = {
        role: {"keyid": signer.public_key.keyid, "key": signer.public_key.to_dict(), "in_use": False}
        for role, signer in keys.offered().items()
    }
    facts: Facts = {"set_up": row is not None, "development": False, "root": None, "roles": {}, "online_keys": offered}
    if row is None:
        return facts
    root, targets = _root(session), _targets(session)
    assert targets.delegations is not None
    assert targets.delegations.roles is not None
    named = {RELEASE: targets.delegations.roles[RELEASE], **{r: root.roles[r] for r in (SNAPSHOT, TIMESTAMP)}}
    for role, offer in offered.items():
        offer["in_use"] = offer["keyid"] in named[role].keyids
    holder = root.roles[ROOT]
    facts["development"] = len(throwaway & set(holder.keyids)) >= holder.threshold
    facts["root"] = {
        "threshold": holder.threshold,
        "keys": [_shown(root.keys[keyid]) for keyid in holder.keyids],
        "targets_keys": [_shown(root.keys[keyid]) for keyid in root.roles[TARGETS].keyids],
    }
    for role in (ROOT, TARGETS, *ONLINE):
        newest = store.newest(session, role)
        assert newest is not None
        expired = newest.expires_at <= now
        facts["roles"][role] = {"version": newest.version, "expires_at": newest.expires_at, "expired": expired}
    facts["roles"][RELEASE]["targets"] = len(catalogue.listed(session))
    return facts


def first_root(session: Session) -> bytes:
    """The root that a device which enrols now begins with; empty while there is none."""
    row = store.newest(session, ROOT)
    return row.body if row else b""


def _shown(key: Any) -> Facts:
    return {"name": name_of(key), "keyid": key.keyid}


def _take_root(session: Session, document: Metadata[Root], data: bytes, *, now: datetime) -> bool:
    before = store.newest(session, ROOT)
    version = document.signed.version
    known = store.at(session, ROOT, version)
    if known is not None:
        if known.body == data:
            return False
        raise Conflict("trust_other_root", f"another root {version} is trusted: make the next version of that one")
    if version != (before.version if before else 0) + 1:
        have = before.version if before else 0
        raise Conflict("trust_version_gap", f"root {version} does not follow root {have}: import those between too")
    previous = Metadata[Root].from_bytes(before.body).signed if before else None
    result = document.signed.get_root_verification_result(previous, document.signed_bytes, document.signatures)
    if not result:
        missing = max(result.first.missing, result.second.missing)
        raise InvalidInput("trust_signatures_missing", f"root {version} lacks {missing} signatures")
    if not document.signed.consistent_snapshot:
        raise InvalidInput("bad_trust_metadata", "a root must ask for consistent snapshots")
    store.add(session, document, ROOT, data, now=now)
    session.flush()
    return True


def _take_targets(session: Session, document: Metadata[Targets], data: bytes, *, now: datetime) -> bool:
    before, version = store.newest(session, TARGETS), document.signed.version
    if before is not None and version <= before.version:
        known = store.at(session, TARGETS, version)
        if known is None or known.body != data:
            raise Conflict("trust_version_gap", f"targets {version} do not follow targets {before.version}")
        return False
    roles = document.signed.delegations.roles if document.signed.delegations else None
    if not roles or set(roles) != {RELEASE} or document.signed.targets:
        raise InvalidInput("bad_trust_metadata", f"targets must delegate to {RELEASE!r} alone and list nothing")
    store.add(session, document, TARGETS, data, now=now)
    session.flush()
    return True


def _check_whole(session: Session, keys: OnlineKeys, root: Root, *, now: datetime) -> None:
    """Nothing is committed that devices would refuse, or that this coordinator cannot sign under."""
    row = store.newest(session, TARGETS)
    if row is None:
        raise InvalidInput("bad_trust_metadata", "the first import needs both root and targets")
    document = Metadata[Targets].from_bytes(row.body)
    try:
        root.verify_delegate(TARGETS, document.signed_bytes, document.signatures)
    except RepositoryError as error:
        raise InvalidInput("trust_signatures_missing", f"the newest targets under the newest root: {error}") from error
    for signed in (root, document.signed):
        if signed.expires <= now:
            raise InvalidInput("trust_document_expired", f"{signed.type} {signed.version} ended {signed.expires}")
    assert document.signed.delegations is not None
    assert document.signed.delegations.roles is not None
    named = {RELEASE: document.signed.delegations.roles[RELEASE], **{r: root.roles[r] for r in (SNAPSHOT, TIMESTAMP)}}
    for role, holder in named.items():
        if not keys.holds(role, holder.keyids):
            raise InvalidInput(
                "online_key_unknown",
                f"this coordinator does not hold the key named for {role!r}; give `fogline trust` what its "
                "`trust show --json` prints",
            )


def _root(session: Session) -> Root:
    row = store.newest(session, ROOT)
    if row is None:
        raise InvalidInput("bad_trust_metadata", "the first import needs both root and targets")
    return Metadata[Root].from_bytes(row.body).signed


def _targets(session: Session) -> Targets:
    row = store.newest(session, TARGETS)
    assert row is not None  # imported with the first root
    return Metadata[Targets].from_bytes(row.body).signed
