"""Control or distilled: which student is released, and a sentence that says why. Pure.

A teacher helps when labels are few and it is clearly better than the student (Hinton, Vinyals, Dean, "Distilling the
Knowledge in a Neural Network", 2015); often neither holds. So the control (the same student, the same budget, no
teacher) is always trained, and the numbers decide.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

CONTROL, DISTILLED = "student", "distilled"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """``chosen`` is ``student`` (the control) or ``distilled``. ``margin``: its accuracy minus the other's; None: no other."""

    chosen: str
    margin: float | None
    sentence: str
    examples: int
    control: float | None = None
    distilled: float | None = None
    teacher: float | None = None

    def as_json(self) -> dict[str, Any]:
        """For a release's report."""
        return asdict(self)


def worth_distilling(*, teacher: float, student: float) -> bool:
    """Whether a teacher of that holdout accuracy may teach a student of this one: only if it is better."""
    return teacher > student


def choose(
    *, control: float | None, distilled: float | None = None, teacher: float | None = None, examples: int
) -> Choice:
    """Compare holdout accuracies (shares); ``examples`` is how many the holdout has. Ties go to the control."""
    chosen, margin, sentence = _verdict(control, distilled, teacher, examples)
    return Choice(
        chosen=chosen,
        margin=None if margin is None else round(margin, 6),
        sentence=sentence,
        examples=examples,
        control=control,
        distilled=distilled,
        teacher=teacher,
    )


def _verdict(
    control: float | None, distilled: float | None, teacher: float | None, examples: int
) -> tuple[str, float | None, str]:
    if control is None:
        return CONTROL, None, "The control is released: the recipe has no holdout to compare on."
    if distilled is None:
        return CONTROL, None, f"The control is released ({control:.1%}): no distilled student was trained."
    lead = distilled - control
    on = f"on {examples} held-out examples"
    if teacher is not None and not worth_distilling(teacher=teacher, student=control):
        why = f"the teacher ({teacher:.1%}) does not beat it ({control:.1%}) {on}, so it is not distilled from"
        return CONTROL, -lead, f"The control is released: {why}. The distilled student has {distilled:.1%}."
    if lead > 0:
        both = f"{distilled:.1%} against the control's {control:.1%} {on}"
        return DISTILLED, lead, f"The distilled student is released: {both}, {100 * lead:.1f} points better."
    both = f"{control:.1%} against the distilled student's {distilled:.1%} {on}"
    return CONTROL, -lead, f"The control is released: {both}; distillation gained {100 * lead:+.1f} points here."
