"""Where the artifacts are listed: in ``release`` itself while they are few, else in its bins (TAP 15)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from sqlalchemy.orm import Session
from tuf.api.metadata import Delegations, Key, Metadata, Role, Root, SuccinctRoles, TargetFile, Targets

from fogline_server.trust import store
from fogline_server.trust.model import BIN_BITS, LISTED_WHOLE, RELEASE, TARGETS

T = TypeVar("T", Root, Targets)


def current(session: Session, role: str, kind: type[T]) -> T:
    """A role's newest document, which is there."""
    row = store.newest(session, role)
    assert row is not None
    signed = Metadata[Any].from_bytes(row.body).signed
    assert isinstance(signed, kind)
    return signed


def release_role(session: Session) -> tuple[Role, Mapping[str, Key]]:
    """Whose keys sign ``release`` and its bins, by the offline targets role."""
    delegations = current(session, TARGETS, Targets).delegations
    assert delegations is not None  # import takes no others
    assert delegations.roles is not None
    role = delegations.roles[RELEASE]
    return role, {keyid: delegations.keys[keyid] for keyid in role.keyids}


def bins(session: Session) -> SuccinctRoles | None:
    """The bins of the newest ``release``; None: it lists the artifacts itself, or there is none yet."""
    row = store.newest(session, RELEASE)
    return None if row is None else _bins(Metadata[Targets].from_bytes(row.body).signed)


def _bins(release: Targets) -> SuccinctRoles | None:
    return None if release.delegations is None else release.delegations.succinct_roles


def open_bins(session: Session) -> SuccinctRoles | None:
    """The bins, if one more artifact goes into its bin alone. None: all is to be signed anew, by :func:`documents`.

    So it is too when a coordinator that knew no bins has signed in between, and listed its artifacts beside them.
    """
    release = current(session, RELEASE, Targets)
    return None if release.targets else _bins(release)


def listed(session: Session) -> dict[str, TargetFile]:
    """Every artifact that is signed, by its path."""
    release = current(session, RELEASE, Targets)
    cut = _bins(release)
    found: dict[str, TargetFile] = {}
    for row in store.newest_of(session, list(cut.get_roles()) if cut else ()).values():
        found |= Metadata[Targets].from_bytes(row.body).signed.targets
    return found | release.targets


def documents(session: Session, targets: Mapping[str, TargetFile]) -> dict[str, Targets]:
    """The whole listing by role, ``release`` last: it is what names the bins."""
    role, keys = release_role(session)
    if len(targets) <= LISTED_WHOLE and bins(session) is None:
        return {RELEASE: Targets(targets=dict(targets))}
    cut = SuccinctRoles(role.keyids, role.threshold, BIN_BITS, RELEASE)
    release = Targets(delegations=Delegations(dict(keys), succinct_roles=cut))
    return {**{name: Targets() for name in cut.get_roles()}, **in_bins(cut, targets.values()), RELEASE: release}


def in_bins(cut: SuccinctRoles, targets: Iterable[TargetFile]) -> dict[str, Targets]:
    """The bins that have any of the targets, with these alone."""
    found: dict[str, Targets] = {}
    for target in targets:
        found.setdefault(cut.get_role_for_target(target.path), Targets()).targets[target.path] = target
    return found
