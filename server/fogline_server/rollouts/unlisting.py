"""Withdraw a release, and take that back. What is withdrawn stays sealed and kept, but no device installs it anew.

There is no force: whatever still needs the release (an alias, a rollout, a device, a way back) would only fail later, on the
device, for the artifact is not signed any more. Move it on first; relisting costs one signature.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.devices.tables import Device
from fogline_server.registry.provenance import seal_of
from fogline_server.registry.service import list_aliases, sealed_release, variants_of
from fogline_server.registry.tables import Release
from fogline_server.rollouts import store
from fogline_server.rollouts.tables import Assignment, Desired, Rollout
from fogline_server.trust import publish
from fogline_server.trust.keys import OnlineKeys
from fogline_shared.errors import Conflict
from fogline_shared.states import RELEASE, DeviceState, ReleaseState, RolloutState


def unlist(session: Session, keys: OnlineKeys, reference: str, *, now: datetime, actor: str) -> Release:
    """Take a release's artifacts out of the signed metadata.

    Raises NotFound ``release_not_found``; Conflict ``release_not_ready``, ``illegal_transition`` and, naming what needs the
    release, ``release_in_use``; Unavailable ``trust_key_missing``.
    """
    # The release first, as whoever starts a rollout of it does; then no other starts, and no device is given a release.
    release = _locked(session, reference)
    store.lock_starts(session)
    store.lock_admissions(session)
    release.state = RELEASE.check(ReleaseState(release.state), ReleaseState.UNLISTED)
    if needs := list(_needs(session, release.id)):
        message = f"release {release.name!r} cannot be withdrawn: {'; '.join(needs)}"
        raise Conflict("release_in_use", message[:1000], release=release.name)
    publish.withdraw(session, keys, publish.listing(release, variants_of(session, release.id)), now=now)
    events.record(session, "release.unlisted", "release", release.id, actor=actor, name=release.name)
    return release


def relist(session: Session, keys: OnlineKeys, reference: str, *, now: datetime, actor: str) -> Release:
    """Sign a withdrawn release's artifacts again. Raises as :func:`unlist`; Conflict ``seal_broken`` if a row has changed."""
    release = _locked(session, reference)
    release.state = RELEASE.check(ReleaseState(release.state), ReleaseState.READY)
    variants = variants_of(session, release.id)
    if release.lineage.get("seal") != seal_of(release, variants):
        raise Conflict("seal_broken", f"release {release.name!r} is not what was sealed: it is not signed again")
    publish.publish(session, keys, publish.listing(release, variants), now=now)
    events.record(session, "release.relisted", "release", release.id, actor=actor, name=release.name)
    return release


def _locked(session: Session, reference: str) -> Release:
    release = sealed_release(session, reference)
    # Not its key: an admission that writes a row which refers to it does not wait.
    session.refresh(release, with_for_update={"key_share": True})
    return release


def _needs(session: Session, release_id: str) -> Iterator[str]:
    """What devices would be sent to the release by, or are on it by, in words with what to do."""
    if aliases := [alias.name for alias in list_aliases(session, release_id)]:
        yield f"alias {', '.join(aliases)} stands on it: move it"
    moving = (*store.UNFINISHED, RolloutState.SCHEDULED)
    for rollout in session.scalars(
        select(Rollout).where(Rollout.release_id == release_id, Rollout.state.in_(moving)).order_by(Rollout.id)
    ):
        yield f"rollout {rollout.id} of it is {rollout.state}: end it"
    for rollout in store.current(session):
        if rollout.release_id == release_id:
            yield f"devices that come later get it by rollout {rollout.id}: roll out another release, or roll that back"
    devices = session.scalar(
        select(func.count())
        .select_from(Desired)
        .join(Device, Device.id == Desired.device_id)
        .where(Desired.release_id == release_id, Device.state != DeviceState.REVOKED)
    )
    if devices:
        yield f"{devices} devices should run it: roll out another release to them"
    returning = (
        select(Rollout.id)
        .join(Assignment, Assignment.rollout_id == Rollout.id)
        .where(Assignment.previous_release_id == release_id, Rollout.state.in_(store.UNFINISHED))
        .distinct()
    )
    for rollout_id in session.scalars(returning.order_by(Rollout.id)):
        yield f"rollout {rollout_id} may return devices to it: wait for its end"
