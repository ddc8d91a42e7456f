"""Control or distilled: which student is released, and a sentence that says why. Pure.

A teacher helps when labels are few and it is clearly better than the student (Hinton, Vinyals, Dean, "Distilling the
Knowledge in a Neural Network", 2015); often neither holds. So the control (the same student, the same budget, no
teacher) is always trained. It is what is released unless the distilled student is better by more than chance explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.distillation.paired import Lead, lead
from fogline_shared.recipe import LabelArray

CONTROL, DISTILLED, TEACHER = "student", "distilled", "teacher"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """``chosen`` is ``student`` (the control) or ``distilled``; accuracies are shares on the holdout's ``examples``.

    ``lead``: the distilled student's accuracy minus the control's, with its 95 % interval; None: there was no comparison.
    """

    chosen: str
    sentence: str
    examples: int
    control: float | None = None
    distilled: float | None = None
    teacher: float | None = None
    lead: Lead | None = None

    def as_json(self) -> dict[str, Any]:
        """For a release's report. Rounded, so that every database gives back the same numbers."""
        return {key: _rounded(value) for key, value in asdict(self).items()}


def choose(correct: Mapping[str, NDArray[np.bool_]] | None, groups: LabelArray | None = None) -> Choice:
    """Compare on the holdout: ``correct`` says by role which of its examples a model has right, (n,) each.

    None: the recipe has no holdout. ``groups``: as in :class:`~fogline_shared.recipe.Dataset`.
    """
    if correct is None:
        return Choice(
            chosen=CONTROL, examples=0, sentence="The control is released: the recipe has no holdout to compare on."
        )
    accuracy = {role: float(right.mean()) for role, right in correct.items()}
    comparison = lead(correct[DISTILLED], correct[CONTROL], groups) if DISTILLED in correct else None
    chosen, sentence = _verdict(accuracy, comparison, len(correct[CONTROL]))
    return Choice(
        chosen=chosen,
        sentence=sentence,
        examples=len(correct[CONTROL]),
        control=accuracy[CONTROL],
        distilled=accuracy.get(DISTILLED),
        teacher=accuracy.get(TEACHER),
        lead=comparison,
    )


def _verdict(accuracy: Mapping[str, float], comparison: Lead | None, examples: int) -> tuple[str, str]:
    control = accuracy[CONTROL]
    if comparison is None:
        return CONTROL, f"The control is released ({control:.1%}): no distilled student was trained."
    distilled, teacher = accuracy[DISTILLED], accuracy.get(TEACHER)
    on = f"on {examples} held-out examples in {comparison.groups} groups"
    if teacher is not None and teacher <= control:
        why = f"the teacher ({teacher:.1%}) does not beat it ({control:.1%}) {on}, so it is not distilled from"
        return CONTROL, f"The control is released: {why}. The distilled student has {distilled:.1%}."
    points = f"{100 * comparison.mean:+.1f} points"
    interval = f"95 % interval {100 * comparison.low:+.1f} to {100 * comparison.high:+.1f}, p = {comparison.p:.2g}"
    both = f"{distilled:.1%} distilled against {control:.1%} {on}, {points} ({interval})"
    if comparison.is_real:
        return DISTILLED, f"The distilled student is released: {both}."
    if comparison.high < 0:
        return CONTROL, f"The control is released: {both}; distillation harms here."
    return CONTROL, f"The control is released, as the simpler one: {both} is within chance."


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return round(value, 6) if isinstance(value, float) else value
