"""Measure one variant through the device's runtime. A job's body."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.compression.engine import manifest_of, open_session, run
from fogline_server.compression.evaluate import agreement, as_metrics, calibration_error, cost, evaluate, score
from fogline_server.compression.examples import calibration_examples
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.registry.model import STUDENT, TEACHER
from fogline_server.registry.service import building_release, get_variant, variants_of
from fogline_shared.errors import Corrupt
from fogline_shared.recipe import Recipe, load_recipe


def evaluate_variant(ctx: JobContext) -> Outcome:
    """Accuracy on the holdout and on unseen people, agreement with the float parent, bytes, latency."""
    release_id, name = str(ctx.spec["release_id"]), str(ctx.spec["variant"])
    with ctx.db.read() as session:
        recipe = load_recipe(building_release(session, release_id).recipe)
        digests = {v.name: v.digest for v in variants_of(session, release_id)}
    parent = None if name in (STUDENT, TEACHER) else digests.get(STUDENT)
    metrics = measure(recipe, ctx.blobs, digests[name], parent=parent)

    def commit(session: Session) -> None:
        building_release(session, release_id)
        get_variant(session, release_id, name).metrics = metrics

    return Outcome(result={"variant": name, "accuracy": metrics["accuracy"]}, commit=commit)


def measure(recipe: Recipe, blobs: BlobStore, digest: str, *, parent: str | None) -> dict[str, Any]:
    """Metrics of an artifact. Members of the holdout's evaluation lie on top; ``accuracy`` is None without one.

    ``unseen`` is the same for people that nothing was chosen by; ``agreement`` is the share of examples labelled like
    the artifact ``parent`` labels them.
    """
    model = blobs.read(digest)
    manifest = manifest_of(open_session(model))
    if manifest is None:
        raise Corrupt("bad_manifest", "the artifact has no manifest")
    holdout, unseen, examples = recipe.holdout(), recipe.unseen(), calibration_examples(recipe)
    metrics: dict[str, Any] = {"accuracy": None}
    if holdout is not None:
        logits = run(open_session(model), holdout.x)
        metrics |= as_metrics(score(logits, holdout.y))
        metrics["calibration_error"] = round(calibration_error(logits, holdout.y), 6)
    if unseen is not None:
        metrics["unseen"] = as_metrics(evaluate(model, unseen))
    if parent is not None and examples is not None:
        metrics["agreement"] = round(agreement(model, blobs.read(parent), examples), 6)
    return metrics | cost(model, manifest.known_answers[0].array(manifest.input_shape))
