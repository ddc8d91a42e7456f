"""Distilled or control: what a run's last round says, in a sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONTROL, DISTILLED = "control_holdout_accuracy", "holdout_accuracy"


def comparison(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """For a run's result, from a round's metrics: both accuracies, which is better, and a sentence."""
    control, distilled = metrics.get(CONTROL), metrics.get(DISTILLED)
    if control is None or distilled is None:
        sentence = "The recipe has no holdout: nobody knows whether distillation helped."
        return {"control": None, "distilled": None, "better": None, "sentence": sentence}
    points = f"{100 * (distilled - control):+.1f} points"
    both = (
        f"{distilled:.1%} distilled against {control:.1%} for its control, the plain average ({points} on the holdout)"
    )
    if control > distilled:
        better, sentence = "control", f"The control is better: {both}. Distillation harms here."
    elif distilled > control:
        better, sentence = "distilled", f"The distilled student is better: {both}."
    else:
        better, sentence = "neither", f"Distillation changes nothing that the holdout shows: {both}."
    return {"control": control, "distilled": distilled, "better": better, "sentence": sentence}
