"""Use cases of the registry. Each takes the caller's session and leaves the commit to the caller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.db import events
from fogline_server.db.base import new_id
from fogline_server.distillation.teaching import Teaching
from fogline_server.jobs import service as jobs
from fogline_server.registry import left_out
from fogline_server.registry.limits import ReleaseLimits
from fogline_server.registry.model import TEACHER, ReleaseSpec, Verification, check_name
from fogline_server.registry.provenance import verification
from fogline_server.registry.tables import Alias, Release, Variant
from fogline_server.registry.taught import teachers_of
from fogline_server.training.tables import Run
from fogline_shared.errors import Conflict, InvalidInput, NotFound
from fogline_shared.recipe import load_recipe
from fogline_shared.states import ReleaseState, RunState

QUEUE = "compute"


def create_release(session: Session, spec: ReleaseSpec, *, now: datetime, actor: str) -> Release:
    """A BUILDING release and the job that exports, quantizes and measures its variants.

    Raises InvalidInput ``unknown_recipe``, ``run_of_other_recipe``, ``run_of_other_size``; NotFound ``run_not_found``;
    Conflict ``release_name_taken``, ``run_not_finished``, ``run_incomplete``; for a taught student also what
    :meth:`Teaching.check_recipe`, :func:`ready_release` and :func:`teachers_of` raise, for limits what ReleaseLimits raises, and for
    chains what :meth:`ReleaseSpec.check_recipe` raises.
    """
    recipe = load_recipe(spec.recipe)
    spec = replace(spec, limits={**recipe.release_limits, **spec.limits})
    ReleaseLimits.from_json(spec.limits).check_labels(spec.recipe, labelled=recipe.holdout() is not None)
    spec.check_recipe(recipe)
    if spec.teaching is not None:
        Teaching.from_json(spec.teaching).check_recipe(recipe)
    releases = [ready_release(session, reference) for reference in spec.teacher_releases]
    teachers = teachers_of(session, releases, spec.recipe)
    for role, run_id in spec.runs.items():
        # Locked: from now on it is not extended.
        _check_run(session.get(Run, run_id, with_for_update=True), run_id, role=role, recipe=spec.recipe)
    release = new_release(session, spec.name, spec.recipe, now=now)
    release.default_variant = spec.default_variant
    release.lineage = {"spec": spec.as_json(), "runs": dict(spec.runs)} | ({"teachers": teachers} if teachers else {})
    session.flush()
    _submit(session, "quantize", release, now=now, actor=actor)
    events.record(session, "release.created", "release", release.id, actor=actor, name=spec.name, runs=dict(spec.runs))
    return release


def _check_run(run: Run | None, run_id: str, *, role: str, recipe: str) -> None:
    if run is None:
        raise NotFound("run_not_found", f"no run {run_id}", run_id=run_id)
    if run.recipe != recipe:
        raise InvalidInput("run_of_other_recipe", f"run {run_id} is of recipe {run.recipe!r}, not {recipe!r}")
    size = "teacher" if role == "teacher" else "student"
    if run.size != size:
        raise InvalidInput("run_of_other_size", f"{role}_run {run_id} trained a {run.size}, not a {size}")
    if run.state != RunState.SUCCEEDED:
        raise Conflict("run_not_finished", f"run {run_id} is {run.state}: only a SUCCEEDED run can be released")
    if run.params_digest is None or run.statistics is None:
        lacking = "parameters" if run.params_digest is None else "statistics"
        raise Conflict("run_incomplete", f"run {run_id} has no {lacking}: train it again")


def import_release(
    session: Session,
    blobs: BlobStore,
    *,
    name: str,
    digest: str,
    like_release_id: str | None,
    now: datetime,
    actor: str,
) -> Release:
    """A BUILDING release of one variant from an ONNX file that is already stored as blob ``digest``.

    A job inspects it in a process of its own. Its manifest is taken from the file, or, when the file has none, from
    the default variant of ``like_release_id``. Raises NotFound ``blob_not_found``, ``release_not_found``; Conflict
    ``release_name_taken``, ``release_not_ready``.
    """
    check_name(name, what="release name", limit=80)
    size = blobs.size(digest)
    like = ready_release(session, like_release_id) if like_release_id else None
    release = new_release(session, name, like.recipe if like else "", now=now)
    release.lineage = {"imported": {"digest": digest, "size": size, "like": like.id if like else None}}
    session.flush()
    _submit(session, "import_model", release, now=now, actor=actor)
    events.record(session, "release.imported", "release", release.id, actor=actor, name=name, digest=digest)
    return release


def check_name_free(session: Session, name: str) -> None:
    """Raise Conflict ``release_name_taken`` if there is a release of that name."""
    if session.scalar(select(Release.id).where(Release.name == name)) is not None:
        raise Conflict("release_name_taken", f"there is a release named {name!r} already", name=name)


def new_release(session: Session, name: str, recipe: str, *, now: datetime) -> Release:
    """An empty BUILDING release; raises Conflict ``release_name_taken``."""
    check_name_free(session, name)
    release = Release(
        id=new_id("rel"),
        name=name,
        recipe=recipe,
        state=ReleaseState.BUILDING,
        lineage={},
        report={},
        default_variant="",
        error=None,
        created_at=now,
        sealed_at=None,
    )
    session.add(release)
    return release


def _submit(session: Session, kind: str, release: Release, *, now: datetime, actor: str) -> None:
    spec = {"release_id": release.id}
    jobs.submit(session, kind, spec, queue=QUEUE, now=now, dedupe_key=f"{kind}:{release.id}", actor=actor)


def submit_evaluations(session: Session, release_id: str, variants: Sequence[str], *, now: datetime) -> None:
    """One ``evaluate`` job a variant; asking twice gives the same jobs."""
    for name in variants:
        spec = {"release_id": release_id, "variant": name}
        jobs.submit(session, "evaluate", spec, queue=QUEUE, now=now, dedupe_key=f"evaluate:{release_id}:{name}")


def get_release(session: Session, reference: str) -> Release:
    """By id, name or alias, in this order; raises NotFound ``release_not_found``."""
    by_id = session.get(Release, reference)
    if by_id is not None:
        return by_id
    by_name = session.scalar(select(Release).where(Release.name == reference))
    if by_name is not None:
        return by_name
    alias = session.get(Alias, reference)
    if alias is None:
        raise NotFound("release_not_found", f"no release {reference!r}", release=reference)
    return session.get_one(Release, alias.release_id)


def sealed_release(session: Session, reference: str) -> Release:
    """Like :func:`get_release`; raises Conflict ``release_not_ready`` unless it is READY or UNLISTED."""
    release = get_release(session, reference)
    if release.state not in (ReleaseState.READY, ReleaseState.UNLISTED):
        raise Conflict("release_not_ready", f"release {release.name!r} is {release.state}, not READY")
    return release


def ready_release(session: Session, reference: str, *, held: bool = False) -> Release:
    """Like :func:`sealed_release`, for a new use of it; raises Conflict ``release_unlisted`` for one that was withdrawn.

    ``held``: nobody withdraws it before this transaction ends.
    """
    release = sealed_release(session, reference)
    if held:
        session.refresh(release, with_for_update={"read": True})
    if release.state == ReleaseState.UNLISTED:
        message = f"release {release.name!r} was withdrawn: take another one, or relist it first"
        raise Conflict("release_unlisted", message, release=release.name)
    return release


def building_release(session: Session, release_id: str) -> Release:
    """For the jobs that build it; raises Conflict ``release_not_building`` once it has ended otherwise."""
    release = get_release(session, release_id)
    if release.state != ReleaseState.BUILDING:
        raise Conflict("release_not_building", f"release {release.name!r} is {release.state}, not BUILDING")
    return release


def list_releases(
    session: Session, *, state: str | None = None, after: str | None = None, limit: int = 50
) -> Sequence[Release]:
    """Newest first; ``after`` is the id of the last release of the page before."""
    query = select(Release).order_by(Release.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Release.state == state)
    if after is not None:
        query = query.where(Release.id < after)
    return session.scalars(query).all()


def variants_of(session: Session, release_id: str) -> Sequence[Variant]:
    """The variants that exist so far, by name."""
    return session.scalars(select(Variant).where(Variant.release_id == release_id).order_by(Variant.name)).all()


def get_variant(session: Session, release_id: str, name: str) -> Variant:
    """Raises NotFound ``variant_left_out`` with the reason, or ``variant_not_found``, naming the ones there are."""
    variant = session.get(Variant, (release_id, name))
    if variant is None:
        release = session.get_one(Release, release_id)
        for each in left_out.of_release(release):
            if each.name == name:
                message = f"release {release.name!r} was built without {name!r}: {each.reason}"
                raise NotFound("variant_left_out", message, variant=name)
        known = ", ".join(v.name for v in variants_of(session, release_id)) or "none"
        raise NotFound("variant_not_found", f"release {release_id} has no variant {name!r}; it has: {known}")
    return variant


def teacher_artifact(session: Session, release_id: str) -> str:
    """Digest of the teacher that answers hard examples for this release; raises like :func:`get_variant`.

    Also of a withdrawn one: devices that have it go on.
    """
    return get_variant(session, sealed_release(session, release_id).id, TEACHER).digest


def set_alias(session: Session, alias: str, release_id: str, *, now: datetime, actor: str) -> Alias:
    """Move (or make) a name on a READY release."""
    check_name(alias, what="alias", limit=40)
    release = ready_release(session, release_id, held=True)
    row = session.get(Alias, alias)
    before = row.release_id if row else None
    if row is None:
        row = Alias(name=alias, release_id=release.id, moved_at=now)
        session.add(row)
    row.release_id, row.moved_at = release.id, now
    events.record(session, "alias.moved", "release", release.id, actor=actor, alias=alias, before=before)
    return row


def list_aliases(session: Session, release_id: str | None = None) -> Sequence[Alias]:
    """All aliases, or those of one release, by name."""
    query = select(Alias).order_by(Alias.name)
    return session.scalars(query if release_id is None else query.where(Alias.release_id == release_id)).all()


def verify(session: Session, blobs: BlobStore, release_id: str) -> Verification:
    """Hash every byte of a sealed release again; problems are in the answer, not raised."""
    release = sealed_release(session, release_id)
    return verification(session, blobs, release, variants_of(session, release.id))
