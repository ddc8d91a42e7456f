"""Move releases on: when every variant is measured, check the gates and seal or fail. Safe to repeat, anywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.database import Database
from fogline_server.registry import left_out
from fogline_server.registry.deltas import service as deltas
from fogline_server.registry.gates import check
from fogline_server.registry.lineage import chain, head_of
from fogline_server.registry.model import ReleaseSpec
from fogline_server.registry.provenance import facts_of_run, facts_of_variant, seal_of
from fogline_server.registry.service import variants_of
from fogline_server.registry.tables import Release, Variant
from fogline_server.training.tables import Run
from fogline_shared.errors import FoglineError, InvalidInput
from fogline_shared.states import RELEASE, ReleaseState, Verdict

Sealed = Callable[[Session, Release, Sequence[Variant]], None]
"""Called in the transaction that makes a release READY; what it raises leaves the release BUILDING until the next tick."""


def tick(db: Database, *, now: datetime, sealed: Sealed | None = None) -> int:
    """Settle what can be settled; return how many releases ended."""
    with db.read() as session:
        building = session.scalars(select(Release.id).where(Release.state == ReleaseState.BUILDING)).all()
        ready = [release_id for release_id in building if _measured(variants_of(session, release_id))]
    ended = 0
    for release_id in ready:
        with db.transaction() as session:
            ended += settle(session, release_id, now=now, sealed=sealed)
    return ended


def _measured(variants: Any) -> bool:
    return bool(variants) and all(v.metrics is not None for v in variants)


def settle(session: Session, release_id: str, *, now: datetime, sealed: Sealed | None = None) -> bool:
    """Seal or fail one release if it is still BUILDING and wholly measured; whether it was this call that did."""
    lock = select(Release).where(Release.id == release_id, Release.state == ReleaseState.BUILDING)
    release = session.scalars(lock.with_for_update(skip_locked=True)).one_or_none()
    if release is None:
        return False
    variants = variants_of(session, release_id)
    if not _measured(variants):
        return False
    results = []
    if "spec" in release.lineage:
        spec = ReleaseSpec(**release.lineage["spec"])
        results = list(check(spec, {v.name: v.metrics or {} for v in variants}))
    release.report = {**release.report, "gates": [r.as_json() for r in results]}
    failed = [(r.variant, InvalidInput(r.gate, r.reason)) for r in results if r.verdict != Verdict.PASS]
    fatal = [error for variant, error in failed if not left_out.may_be(release, variant)]
    if fatal:
        fail(session, release, fatal[0])
    else:
        for variant, error in failed:
            left_out.leave_out(session, release, variant, error)
        variants = variants_of(session, release_id)
        _seal(session, release, list(variants), now=now)
        deltas.ask(session, release, now=now)
        if sealed is not None:
            sealed(session, release, variants)
    return True


def _seal(session: Session, release: Release, variants: list[Variant], *, now: datetime) -> None:
    facts: list[dict[str, Any]] = []
    for role, run_id in release.lineage.get("runs", {}).items():
        facts += facts_of_run(session, session.get_one(Run, run_id), role)
    if "taught" in release.lineage:
        facts.append({"step": "taught", **release.lineage["taught"]})
    if "imported" in release.lineage:
        facts.append({"step": "imported", **release.lineage["imported"]})
    if "searched" in release.lineage:
        facts.append({"step": "searched", **release.lineage["searched"]})
    facts += [each.facts for each in left_out.of_release(release)]
    links = chain([*facts, *(facts_of_variant(v) for v in variants)])
    release.lineage = {**release.lineage, "chain": links, "head": head_of(links)}
    release.lineage = {**release.lineage, "seal": seal_of(release, variants)}
    release.state = RELEASE.check(ReleaseState(release.state), ReleaseState.READY)
    release.sealed_at = now
    events.record(session, "release.ready", "release", release.id, name=release.name, head=head_of(links))


def give_up_variant(session: Session, release_id: str, name: str, error: FoglineError) -> None:
    """Go on without a variant that could not be measured, if the release can; else the release has failed."""
    locked = select(Release).where(Release.id == release_id).with_for_update().execution_options(populate_existing=True)
    release = session.scalars(locked).one()
    if release.state == ReleaseState.BUILDING and left_out.may_be(release, name):
        left_out.leave_out(session, release, name, error)
    else:
        fail(session, release, error)


def fail(session: Session, release: Release, error: FoglineError) -> None:
    """Mark a BUILDING release FAILED; do nothing to one that has ended."""
    if release.state != ReleaseState.BUILDING:
        return
    release.state = RELEASE.check(ReleaseState(release.state), ReleaseState.FAILED)
    release.error = {"code": error.code, "message": error.message}
    events.record(session, "release.failed", "release", release.id, name=release.name, code=error.code)
