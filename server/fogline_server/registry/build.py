"""Runs → artifacts: export every variant, choose between control and distilled student, quantize. A job's body."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from sqlalchemy.orm import Session

from fogline_server.compression.chain import Chain, needs_of
from fogline_server.compression.engine import FloatArray
from fogline_server.compression.evaluate import correct
from fogline_server.compression.export import export_onnx, fused, load_model
from fogline_server.compression.parent import parent_of
from fogline_server.compression.parity import Parity, parity
from fogline_server.db import events
from fogline_server.db.base import utc_now
from fogline_server.distillation.choice import CONTROL, DISTILLED, Choice, choose
from fogline_server.distillation.teaching import TRIAL, Teaching, halves
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.registry import left_out
from fogline_server.registry.forms import form_of
from fogline_server.registry.model import INT8, STUDENT, STUDENT_INT8, TEACHER, ReleaseSpec
from fogline_server.registry.service import building_release, submit_evaluations
from fogline_server.registry.tables import Release, Variant
from fogline_server.registry.taught import Source, TaughtStudent, teach_student
from fogline_server.training.tables import Run
from fogline_shared.errors import Corrupt, FoglineError, InvalidInput
from fogline_shared.recipe import Recipe, Standardisation, check_data, load_recipe

# Role of a run → size of the model it trained and the variant its export is.
_ROLES = {"teacher": ("teacher", TEACHER), CONTROL: ("student", STUDENT), DISTILLED: ("student", STUDENT)}


@dataclass(frozen=True, kw_only=True)
class Built:
    """Variant name → artifact bytes, and which student they are of."""

    artifacts: Mapping[str, bytes]
    choice: Choice
    # Of the float variants, which are made of a torch model: how well the file answers as that does.
    parity: Mapping[str, Parity]
    taught: TaughtStudent | None = None
    # Chains that made nothing, and why.
    failed: Mapping[str, FoglineError] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class School:
    """Teaching at the cloud, and the artifacts of the releases that teach besides the teacher's run."""

    teaching: Teaching
    releases: Sequence[bytes] = ()
    on_step: Callable[[], None] = lambda: None


def build_artifacts(
    recipe: Recipe,
    sources: Mapping[str, Source],
    chains: Mapping[str, Chain] | None = None,
    *,
    spare: Collection[str] = (),
    school: School | None = None,
) -> Built:
    """All variants from the runs' results by role, with those of ``chains`` by name. Pure but for the recipe's data.

    ``spare``: chains that may fail by themselves.
    Raises what :func:`~fogline_server.compression.export.export_onnx`, the chains, the teaching and
    :func:`~fogline_shared.recipe.check_data` (of the holdout) raise.
    """
    exported = {role: _exported(recipe, role, source) for role, source in sources.items()}
    taught = None
    if school is not None:
        own = [exported["teacher"]] if "teacher" in exported else []
        taught = teach_student(recipe, sources, [*own, *school.releases], school.teaching, on_step=school.on_step)
        sources = {**sources, DISTILLED: taught.source}
        exported[DISTILLED] = _exported(recipe, DISTILLED, taught.source)
    choice = _choose(recipe, exported, chosen_by_half=taught is not None)
    student, source = exported[choice.chosen], sources[choice.chosen]
    made = {STUDENT_INT8: INT8, **(chains or {})}
    needs = needs_of(made.values())
    parent = parent_of(recipe, "student", source.params, source.standardisation, student, needs=needs)
    artifacts = {STUDENT: student}
    compared = {STUDENT: _compared(recipe, "student", source, student, parent.examples)}
    failed: dict[str, FoglineError] = {}
    for name, chain in made.items():
        try:
            artifacts[name] = form_of(chain, parent, recipe, name)
        except (InvalidInput, Corrupt) as error:
            if name not in spare:
                raise
            failed[name] = error
    if "teacher" in exported:
        artifacts[TEACHER] = exported["teacher"]
        compared[TEACHER] = _compared(recipe, "teacher", sources["teacher"], exported["teacher"], parent.examples)
    return Built(artifacts=artifacts, choice=choice, parity=compared, taught=taught, failed=failed)


def _exported(recipe: Recipe, role: str, source: Source) -> bytes:
    size, variant = _ROLES[role]
    return export_onnx(recipe, size, source.params, source.standardisation, variant)


def _compared(recipe: Recipe, size: str, source: Source, artifact: bytes, examples: FloatArray) -> Parity:
    module = load_model(recipe, size, source.params)
    return parity(fused(module, source.standardisation, rank=len(recipe.input_shape)), artifact, examples)


def _choose(recipe: Recipe, exported: Mapping[str, bytes], *, chosen_by_half: bool) -> Choice:
    """``chosen_by_half``: a half of the holdout has seen to the distilled student; the other half judges."""
    holdout = recipe.holdout()
    if holdout is None:
        return choose(None)
    check_data(recipe, holdout, what="the holdout")
    if chosen_by_half:
        _, holdout = halves(holdout)
    return choose({role: correct(model, holdout) for role, model in exported.items()}, holdout.groups)


def quantize(ctx: JobContext) -> Outcome:
    """Build every variant of a release and ask for their measurement."""
    release_id = str(ctx.spec["release_id"])
    with ctx.db.read() as session:
        release = building_release(session, release_id)
        spec = ReleaseSpec(**release.lineage["spec"])
        runs = {role: session.get_one(Run, run_id) for role, run_id in spec.runs.items()}
        teachers = list(release.lineage.get("teachers", ()))
    sources = {
        role: Source(
            params=ctx.blobs.read(str(run.params_digest)),
            standardisation=Standardisation.from_json(run.statistics or {}),
        )
        for role, run in runs.items()
    }
    chains = {name: Chain.from_json(links) for name, links in spec.chains.items()}
    spare = set(chains) - {spec.default_variant}
    built = build_artifacts(load_recipe(spec.recipe), sources, chains, spare=spare, school=_school(ctx, spec, teachers))
    ctx.lease.progress(1, 2, "storing the artifacts")
    stored = {name: ctx.blobs.put([data]) for name, data in built.artifacts.items()}
    report: dict[str, Any] = {
        "choice": built.choice.as_json(),
        "parity": {name: each.as_json() for name, each in built.parity.items()},
    }
    taught: dict[str, Any] = {}
    if built.taught is not None:
        report["teaching"] = dict(built.taught.report)
        digest = ctx.blobs.put([built.taught.source.params]).digest
        taught = {"taught": {"digest": digest, "settings": built.taught.report["settings"], "teachers": teachers}}

    def commit(session: Session) -> None:
        release = building_release(session, release_id)
        release.report = report
        release.lineage = {**release.lineage, **taught}
        for name, error in built.failed.items():
            left_out.leave_out(session, release, name, error)
        add_variants(session, release, {name: (blob.digest, blob.size) for name, blob in stored.items()})

    return Outcome(result={"variants": sorted(stored), "choice": built.choice.as_json()}, commit=commit)


def _school(ctx: JobContext, spec: ReleaseSpec, teachers: Sequence[Mapping[str, str]]) -> School | None:
    if spec.teaching is None:
        return None
    teaching = Teaching.from_json(spec.teaching)
    # Lessons of teachers and of the control, and the search's short ones. They may end early.
    total = int(teaching.steps * (2 * teaching.seeds + TRIAL * (teaching.trials if teaching.trials > 1 else 0)))
    steps = count(1)

    def on_step() -> None:
        ctx.lease.progress(min(next(steps), total), total + 1, "teaching the student")

    return School(teaching=teaching, releases=[ctx.blobs.read(each["digest"]) for each in teachers], on_step=on_step)


def add_variants(session: Session, release: Release, stored: Mapping[str, tuple[str, int]]) -> None:
    """Write the rows of stored artifacts, variant → (digest, size), and the jobs that measure them."""
    for name, (digest, size) in sorted(stored.items()):
        session.add(Variant(release_id=release.id, name=name, digest=digest, size=size, metrics=None))
    session.flush()
    submit_evaluations(session, release.id, sorted(stored), now=utc_now())
    events.record(session, "release.variants_built", "release", release.id, variants=sorted(stored))
