"""What candidates are judged by: a half of the holdout chooses, the other half judges; without one, the parent's answers do."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from fogline_server.compression.engine import FloatArray, open_session, run
from fogline_server.compression.evaluate import agreement, as_metrics, calibration_error, cost, score
from fogline_server.compression.examples import calibration_examples, transfer_examples
from fogline_server.distillation.teaching import halves
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Dataset, Recipe, check_data

HOLDOUT, AGREEMENT = "holdout", "agreement"
# Two halves of one example say nothing; nor do these, but they can be told apart.
FEWEST = 4


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """``kind``: whether labels are the holdout's, or what the float parent answers to unlabelled examples."""

    kind: str
    choosing: Dataset
    judging: Dataset

    @property
    def x(self) -> FloatArray:
        """All examples."""
        return np.concatenate([self.choosing.x, self.judging.x])

    @property
    def example(self) -> FloatArray:
        """The one that latency is measured with."""
        first: FloatArray = self.choosing.x[0]
        return first


def check_examples_to_judge_by(recipe: Recipe) -> None:
    """Raise InvalidInput ``no_search_data`` for a recipe that leaves nothing to judge by."""
    x = calibration_examples(recipe)
    if x is None or len(x) < FEWEST:
        message = (
            f"recipe {recipe.name} has neither holdout() nor transfer(), or hardly anything in it: nothing tells good forms "
            "of a model from bad ones"
        )
        raise InvalidInput("no_search_data", message)


def evidence_of(recipe: Recipe, parent: bytes) -> Evidence:
    """Raises as :func:`check_examples_to_judge_by`, and for a holdout what ``check_data`` raises."""
    check_examples_to_judge_by(recipe)
    labelled = recipe.holdout()
    if labelled is not None:
        check_data(recipe, labelled, what="the holdout")
        kind = HOLDOUT
    else:
        x = calibration_examples(recipe)
        assert x is not None
        kind, labelled = AGREEMENT, Dataset(x=x, y=run(open_session(parent), x).argmax(axis=1))
    choosing, judging = halves(labelled)
    return Evidence(kind=kind, choosing=choosing, judging=judging)


def measure(model: bytes, parent: bytes, evidence: Evidence) -> dict[str, Any]:
    """Metrics of a form: on each half, its agreement with the parent over both, bytes, latency.

    Raises Corrupt ``logits_not_finite``, ``model_does_not_run``.
    """
    found: dict[str, Any] = {}
    for name, half in (("choosing", evidence.choosing), ("judging", evidence.judging)):
        logits = run(open_session(model), half.x)
        error = round(calibration_error(logits, half.y), 6)
        found[name] = as_metrics(score(logits, half.y)) | {"calibration_error": error}
    found["agreement"] = round(agreement(model, parent, evidence.x), 6)
    return found | cost(model, evidence.example)


def fingerprint_of(recipe: Recipe, evidence: Evidence) -> str:
    """SHA-256 over the examples that chains are made with and judged by."""
    hashed = hashlib.sha256()
    transfer = transfer_examples(recipe)
    for half in (evidence.choosing, evidence.judging):
        hashed.update(np.ascontiguousarray(half.x).data)
        hashed.update(np.ascontiguousarray(half.y).data)
    if transfer is not None:
        hashed.update(np.ascontiguousarray(transfer).data)
    return hashed.hexdigest()
