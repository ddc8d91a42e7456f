"""Does teaching help here? A search for settings, then students by seed, each with a control of the same budget.

The control is taught by itself: the same student, steps and unlabelled examples, but its own answers (pseudo-labels; Lee,
"Pseudo-label", ICML workshop 2013). What the distilled student has beyond it comes from the teacher and not from more training.

Half of the holdout chooses (settings, when to stop, which seed), the other half judges: what has chosen would flatter.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch.nn import Module

from fogline_server.distillation.lesson import Taught, Teacher, teach
from fogline_server.distillation.teaching import RANGES, TRIAL, Teaching, halves
from fogline_server.training.ensemble.distil import logits_of
from fogline_shared.recipe import Dataset, FloatArray, Recipe, Standardisation

SEARCHED = ("learning_rate", "temperature", "mixup")
_SEED = 7_919


@dataclass(frozen=True, kw_only=True)
class Study:
    """``model``, ``control``: the distilled and the self-taught student that the choosing half likes best. Accuracies are shares of the judging half.

    ``trials``: (settings, score on the choosing half) of the search, the chosen ones being ``teaching``'s.
    """

    model: Module
    control: Module
    teaching: Teaching
    trials: Sequence[tuple[Mapping[str, float], float]]
    judged: int
    plain: float
    teacher: float
    self_taught: Sequence[float]
    distilled: Sequence[float]
    steps: int

    @property
    def helped(self) -> bool:
        """Whether the distilled students are on average better than the student as it was and than those who taught themselves."""
        return statistics.mean(self.distilled) > max(self.plain, statistics.mean(self.self_taught))

    @property
    def sentence(self) -> str:
        """For a release's report."""
        verdict = "Teaching helped" if self.helped else "Teaching did not help"
        return (
            f"{verdict}: {_spread(self.distilled)} distilled, {_spread(self.self_taught)} taught by itself with the same "
            f"steps and images, {self.plain:.1%} before; teacher {self.teacher:.1%} ({self.judged} held-out examples, "
            f"{len(self.distilled)} seeds)."
        )

    def as_json(self) -> dict[str, Any]:
        """For a release's report. Rounded, so that every database gives back the same numbers."""
        return {
            "sentence": self.sentence,
            "helped": self.helped,
            "settings": self.teaching.as_json(),
            "trials": [{**settings, "score": round(score, 6)} for settings, score in self.trials],
            "judged": self.judged,
            "plain": round(self.plain, 6),
            "teacher": round(self.teacher, 6),
            "self_taught": [round(share, 6) for share in self.self_taught],
            "distilled": [round(share, 6) for share in self.distilled],
            "steps": self.steps,
        }


def study(
    recipe: Recipe,
    student: Module,
    teachers: Sequence[Teacher],
    standardisation: Standardisation,
    teaching: Teaching,
    *,
    on_step: Callable[[], None] = lambda: None,
) -> Study:
    """Search, teach, compare. ``recipe`` has passed :meth:`Teaching.check_recipe`. Raises as :func:`lesson.teach` does."""
    holdout, transfer = recipe.holdout(), recipe.transfer()
    assert holdout is not None
    assert transfer is not None
    choosing, judging = halves(holdout)
    itself = [Teacher(answers=lambda x: logits_of(student, x, standardisation).astype(np.float32))]

    def lesson(by: Sequence[Teacher], settings: Teaching, seed: int) -> Taught:
        return teach(
            recipe,
            student,
            by,
            transfer,
            standardisation,
            settings,
            seed=seed,
            judge=lambda model: recipe.evaluate(model, choosing, standardisation).accuracy,
            on_step=on_step,
        )

    def judged(model: Module) -> float:
        return recipe.evaluate(model, judging, standardisation).accuracy

    trials, settings = _search(teaching, lambda tried: lesson(teachers, tried, _SEED))
    taught = [lesson(teachers, settings, seed) for seed in range(settings.seeds)]
    control = [lesson(itself, settings, seed) for seed in range(settings.seeds)]
    return Study(
        model=max(taught, key=lambda one: one.score).model,
        control=max(control, key=lambda one: one.score).model,
        teaching=settings,
        trials=[(changed, tried.score) for changed, tried in trials],
        judged=len(judging),
        plain=judged(student),
        teacher=_accuracy(teachers, judging),
        self_taught=[judged(one.model) for one in control],
        distilled=[judged(one.model) for one in taught],
        steps=sum(one.steps for one in (*taught, *control, *(tried for _, tried in trials))),
    )


def _search(
    teaching: Teaching, attempt: Callable[[Teaching], Taught]
) -> tuple[list[tuple[Mapping[str, float], Taught]], Teaching]:
    """The settings that did best in short lessons of equal length; without a search, the given ones."""
    if teaching.trials == 1:
        return [], teaching
    steps = max(1, int(TRIAL * teaching.steps))
    tried = [(settings, attempt(replace(settings, steps=steps))) for settings in _settings(teaching)]
    best, _ = max(tried, key=lambda one: one[1].score)
    return [({name: getattr(settings, name) for name in SEARCHED}, lesson) for settings, lesson in tried], best


def _settings(teaching: Teaching) -> Iterator[Teaching]:
    """What to try: the given settings, then random ones around them (Bergstra, Bengio, JMLR 2012)."""
    chance = np.random.default_rng(_SEED)
    yield teaching
    for _ in range(teaching.trials - 1):
        rate = teaching.learning_rate * math.exp(chance.uniform(-1.5, 1.5))
        temperature = teaching.temperature * math.exp(chance.uniform(-0.7, 1.1))
        yield replace(
            teaching,
            learning_rate=float(np.clip(rate, *RANGES["learning_rate"])),
            temperature=float(np.clip(temperature, *RANGES["temperature"])),
            mixup=float(chance.choice([0.0, 0.2, 1.0])),
        )


def _accuracy(teachers: Sequence[Teacher], data: Dataset) -> float:
    """Of the teachers' average prediction."""
    total = sum(_softmax(teacher.answers(data.x)) for teacher in teachers)
    return float((np.asarray(total).argmax(1) == data.y).mean())


def _softmax(logits: FloatArray) -> FloatArray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True), dtype=np.float32)


def _spread(shares: Sequence[float]) -> str:
    if len(shares) == 1:
        return f"{shares[0]:.1%}"
    return f"{100 * statistics.mean(shares):.1f} ± {100 * statistics.stdev(shares):.1f} %"
