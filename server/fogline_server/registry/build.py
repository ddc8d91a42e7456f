"""Runs → artifacts: export every variant, choose between control and distilled student, quantize. A job's body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from fogline_server.compression.chain import Chain, Link
from fogline_server.compression.evaluate import correct
from fogline_server.compression.export import OUTPUT_NAME, export_onnx, parent_of
from fogline_server.compression.stamp import stamp
from fogline_server.db import events
from fogline_server.db.base import utc_now
from fogline_server.distillation.choice import CONTROL, DISTILLED, Choice, choose
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.registry.model import STUDENT, STUDENT_INT8, TEACHER, ReleaseSpec
from fogline_server.registry.service import building_release, submit_evaluations
from fogline_server.registry.tables import Release, Variant
from fogline_server.training.tables import Run
from fogline_shared.recipe import Recipe, Standardisation, check_data, load_recipe

# Role of a run → size of the model it trained and the variant its export is.
_ROLES = {"teacher": ("teacher", TEACHER), CONTROL: ("student", STUDENT), DISTILLED: ("student", STUDENT)}

INT8 = Chain(links=(Link(method="int8_static"),))


@dataclass(frozen=True, kw_only=True)
class Source:
    """What a run left behind: a safetensors blob and the standardisation of its data."""

    params: bytes
    standardisation: Standardisation


@dataclass(frozen=True, kw_only=True)
class Built:
    """Variant name → artifact bytes, and which student they are of."""

    artifacts: Mapping[str, bytes]
    choice: Choice


def build_artifacts(recipe: Recipe, sources: Mapping[str, Source], chains: Mapping[str, Chain] | None = None) -> Built:
    """All variants from the runs' results by role, with those of ``chains`` by name. Pure but for the recipe's data.

    Raises what :func:`~fogline_server.compression.export.export_onnx`, the chains and
    :func:`~fogline_shared.recipe.check_data` (of the holdout) raise.
    """
    exported = {}
    for role, source in sources.items():
        size, variant = _ROLES[role]
        exported[role] = export_onnx(recipe, size, source.params, source.standardisation, variant)
    choice = _choose(recipe, exported)
    student, source = exported[choice.chosen], sources[choice.chosen]
    parent = parent_of(recipe, "student", source.params, source.standardisation, student, trains=bool(chains))
    artifacts = {STUDENT: student}
    for name, chain in {STUDENT_INT8: INT8, **(chains or {})}.items():
        artifacts[name] = stamp(
            chain.compress(parent), recipe=recipe, variant=name, output_name=OUTPUT_NAME, examples=parent.examples
        )
    if "teacher" in exported:
        artifacts[TEACHER] = exported["teacher"]
    return Built(artifacts=artifacts, choice=choice)


def _choose(recipe: Recipe, exported: Mapping[str, bytes]) -> Choice:
    holdout = recipe.holdout()
    if holdout is None:
        return choose(None)
    check_data(recipe, holdout, what="the holdout")
    return choose({role: correct(model, holdout) for role, model in exported.items()}, holdout.groups)


def quantize(ctx: JobContext) -> Outcome:
    """Build every variant of a release and ask for their measurement."""
    release_id = str(ctx.spec["release_id"])
    with ctx.db.read() as session:
        release = building_release(session, release_id)
        spec = ReleaseSpec(**release.lineage["spec"])
        runs = {role: session.get_one(Run, run_id) for role, run_id in spec.runs.items()}
    sources = {
        role: Source(
            params=ctx.blobs.read(str(run.params_digest)),
            standardisation=Standardisation.from_json(run.statistics or {}),
        )
        for role, run in runs.items()
    }
    chains = {name: Chain.from_json(links) for name, links in spec.chains.items()}
    built = build_artifacts(load_recipe(spec.recipe), sources, chains)
    ctx.lease.progress(1, 2, "storing the artifacts")
    stored = {name: ctx.blobs.put([data]) for name, data in built.artifacts.items()}

    def commit(session: Session) -> None:
        release = building_release(session, release_id)
        release.report = {"choice": built.choice.as_json()}
        add_variants(session, release, {name: (blob.digest, blob.size) for name, blob in stored.items()})

    return Outcome(result={"variants": sorted(stored), "choice": built.choice.as_json()}, commit=commit)


def add_variants(session: Session, release: Release, stored: Mapping[str, tuple[str, int]]) -> None:
    """Write the rows of stored artifacts, variant → (digest, size), and the jobs that measure them."""
    for name, (digest, size) in sorted(stored.items()):
        session.add(Variant(release_id=release.id, name=name, digest=digest, size=size, metrics=None))
    session.flush()
    submit_evaluations(session, release.id, sorted(stored), now=utc_now())
    events.record(session, "release.variants_built", "release", release.id, variants=sorted(stored))
