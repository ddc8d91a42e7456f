"""Distillation at the cloud: settings, one lesson, and the study that says whether it helped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from tiny_recipe import CHANNELS, CLASSES, Tiny, signals

from fogline_recipes import parameters
from fogline_server.distillation.lesson import Taught, Teacher, teach
from fogline_server.distillation.study import study
from fogline_server.distillation.teaching import RANGES, Teaching, halves
from fogline_shared.errors import Conflict, InvalidInput
from fogline_shared.recipe import Dataset, FloatArray, Standardisation

STANDARD = Standardisation(mean=(5.0,) * CHANNELS, scale=(3.0,) * CHANNELS)
SHORT = Teaching(steps=120, batch_size=32, learning_rate=1e-2, temperature=1.0)


class Hinted(Tiny):
    """Tiny, and where its networks keep what they have understood."""

    hints: ClassVar[Mapping[str, str]] = {"teacher": "3", "student": "3"}


def truth(x: FloatArray) -> FloatArray:
    """Logits of somebody who knows: the energy of one to four periods."""
    power = np.abs(np.fft.rfft(x - 5.0, axis=2)).sum(1)[:, 1 : CLASSES + 1] + 1e-9
    return (10.0 * power / power.sum(1, keepdims=True)).astype(np.float32)


KNOWING = Teacher(answers=truth)


def lesson(
    teaching: Teaching = SHORT,
    *,
    seed: int = 0,
    teacher: Teacher = KNOWING,
    recipe: Tiny | None = None,
    judge: Callable[[torch.nn.Module], float] = lambda model: (
        Tiny().evaluate(model, signals(77, 200), STANDARD).accuracy
    ),
) -> Taught:
    recipe = recipe or Tiny()
    transfer, student = recipe.transfer(), recipe.model("student", seed=1)
    assert transfer is not None
    return teach(recipe, student, [teacher], transfer, STANDARD, teaching, seed=seed, judge=judge)


def test_a_student_learns_from_a_teacher_alone_and_a_seed_repeats_it() -> None:
    model = lesson(seed=3).model
    assert Tiny().evaluate(model, signals(99, 200), STANDARD).accuracy > 0.8
    brief = Teaching(steps=10, batch_size=32)
    first, again, other = (parameters.read(lesson(brief, seed=seed).model) for seed in (3, 3, 4))
    assert all(np.array_equal(array, again[name]) for name, array in first.items())
    assert any(not np.array_equal(array, other[name]) for name, array in first.items())


def test_the_state_the_judge_liked_best_is_kept_and_patience_ends_a_lesson() -> None:
    scores = iter([0.3, 0.9, 0.5, 0.4, 0.2])
    seen: list[dict[str, Any]] = []

    def judge(model: torch.nn.Module) -> float:
        seen.append(parameters.read(model))
        return next(scores)

    taught = lesson(Teaching(steps=100, batch_size=32, patience=2), judge=judge)
    assert (taught.score, taught.steps, len(seen)) == (0.9, 20, 4)
    assert all(np.array_equal(array, seen[1][name]) for name, array in parameters.read(taught.model).items())


def test_the_student_itself_stays_as_it_was() -> None:
    recipe = Tiny()
    student = recipe.model("student", seed=1)
    before = parameters.read(student)
    study(recipe, student, [KNOWING], STANDARD, Teaching(steps=2, seeds=1))
    assert all(np.array_equal(array, before[name]) for name, array in parameters.read(student).items())


def test_blended_examples_are_labelled_by_the_teacher() -> None:
    asked: list[FloatArray] = []

    def answers(x: FloatArray) -> FloatArray:
        asked.append(x)
        return truth(x)

    lesson(Teaching(steps=2, batch_size=16, mixup=1.0), teacher=Teacher(answers=answers))
    transfer = Tiny().transfer()
    assert transfer is not None
    known = {example.tobytes() for example in transfer}
    assert not any(example.tobytes() in known for batch in asked for example in batch)


def test_hints_draw_the_students_features_towards_the_teachers() -> None:
    def features(x: FloatArray) -> FloatArray:
        return truth(x) - 2.5

    def distance(hint: float) -> float:
        """Of the best linear map of the student's features, on examples it was not taught."""
        later = count()
        model = lesson(
            Teaching(steps=150, batch_size=32, learning_rate=1e-2, hint=hint),
            teacher=Teacher(answers=lambda x: np.zeros((len(x), CLASSES), np.float32), features=features),
            recipe=Hinted(),
            judge=lambda _model: next(later),
        ).model
        x = signals(5, 200).x
        with torch.no_grad():
            inner = model[:4](torch.from_numpy((x - 5.0) / 3.0)).mean(2).numpy()
        inner = np.column_stack([inner, np.ones(len(inner))])
        mapped = inner @ np.linalg.lstsq(inner, features(x), rcond=None)[0]
        return float(((mapped - features(x)) ** 2).mean())

    assert distance(10.0) < 0.7 * distance(1e-9)


def test_a_teacher_of_nonsense_is_an_error_and_not_a_model() -> None:
    with pytest.raises(Conflict, match=r"learning_rate 0\.01 too high") as caught:
        lesson(teacher=Teacher(answers=lambda x: np.full((len(x), CLASSES), np.nan, np.float32)))
    assert caught.value.code == "distillation_diverged"


def test_a_study_tells_a_good_teacher_from_the_students_own_answers() -> None:
    recipe = Tiny()
    student = lesson(Teaching(steps=12, batch_size=32)).model
    told = study(recipe, student, [KNOWING], STANDARD, Teaching(steps=60, batch_size=32, learning_rate=1e-2, seeds=2))
    assert told.helped
    assert len(told.distilled) == len(told.self_taught) == 2
    assert told.teacher > 0.95
    assert "Teaching helped" in told.sentence
    assert told.as_json()["trials"] == []


def test_a_study_says_when_a_teacher_does_not_help() -> None:
    recipe = Tiny()
    told = study(
        recipe,
        lesson().model,
        [Teacher(answers=lambda x: -truth(x))],
        STANDARD,
        Teaching(steps=40, batch_size=32, learning_rate=1e-2, seeds=1),
    )
    assert not told.helped
    assert "Teaching did not help" in told.sentence


def test_a_search_tries_short_lessons_and_takes_the_best_settings() -> None:
    counted = 0

    def on_step() -> None:
        nonlocal counted
        counted += 1

    teaching = Teaching(steps=40, batch_size=32, learning_rate=1e-6, seeds=1, trials=4, patience=20)
    told = study(Tiny(), Tiny().model("student", seed=1), [KNOWING], STANDARD, teaching, on_step=on_step)
    assert len(told.trials) == 4
    assert told.trials[0][0]["learning_rate"] == 1e-6
    best, score = max(told.trials, key=lambda trial: trial[1])
    assert score == max(s for _, s in told.trials)
    assert told.teaching.learning_rate == best["learning_rate"]
    assert told.teaching.steps == 40
    assert counted == told.steps <= 4 * 10 + 2 * 40


def test_what_chooses_does_not_judge() -> None:
    x = np.arange(12, dtype=np.float32)[:, None]
    data = Dataset(x=x, y=np.zeros(12, np.int64), groups=np.repeat([5, 7, 9], 4))
    choosing, judging = halves(data)
    assert choosing.groups is not None
    assert judging.groups is not None
    assert not set(choosing.groups) & set(judging.groups)
    assert (len(set(choosing.groups)), len(set(judging.groups))) == (2, 1)
    assert sorted([*choosing.x[:, 0], *judging.x[:, 0]]) == list(range(12))
    choosing, judging = halves(Dataset(x=x, y=np.zeros(12, np.int64)))
    assert (len(choosing), len(judging)) == (6, 6)
    assert not set(choosing.x[:, 0]) & set(judging.x[:, 0])


@pytest.mark.parametrize("name", RANGES)
def test_settings_out_of_range_are_named_with_the_range(name: str) -> None:
    for wrong in (RANGES[name][0] - 1, RANGES[name][1] + 1, "many", float("nan")):
        with pytest.raises(InvalidInput, match=f"teaching.{name} must be") as caught:
            Teaching.from_json({name: wrong})
        assert caught.value.code == "invalid_teaching"


def test_settings_survive_json_and_unknown_ones_are_named() -> None:
    assert Teaching.from_json(SHORT.as_json()) == SHORT
    with pytest.raises(InvalidInput, match="no field 'warmth'; fields: steps"):
        Teaching.from_json({"warmth": 2})
    with pytest.raises(InvalidInput, match="is an object"):
        Teaching.from_json([1])


class Deprived(Tiny):
    def transfer(self) -> FloatArray | None:
        return None


class Unjudged(Tiny):
    def holdout(self) -> Dataset | None:
        return None


@pytest.mark.parametrize(
    ("recipe", "teaching", "code"),
    [
        (Deprived(), SHORT, "no_transfer_set"),
        (Unjudged(), SHORT, "no_holdout"),
        (Tiny(), Teaching(hint=1.0), "no_hints"),
    ],
)
def test_a_recipe_that_cannot_be_taught_is_refused(recipe: Tiny, teaching: Teaching, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        teaching.check_recipe(recipe)
    assert caught.value.code == code
    SHORT.check_recipe(Tiny())
