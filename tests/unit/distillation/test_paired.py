"""The interval of a lead is what it says: it holds the truth 95 times of 100, also when examples come in groups."""

from __future__ import annotations

import numpy as np
import pytest

from fogline_server.distillation.paired import _t_quantile, lead

TRIALS = 2000


def grouped(rng: np.random.Generator, *, groups: int, size: int, better: float) -> tuple[np.ndarray, ...]:
    """Two models that are right and wrong by whole groups, mostly; the first gains ``better``."""
    member = np.repeat(np.arange(groups), size)
    ease = rng.beta(2, 1, size=groups)[member]
    tilt = (0.15 * rng.normal(size=groups))[member]
    first = rng.random(groups * size) < np.clip(ease + tilt + better, 0, 1)
    second = rng.random(groups * size) < ease
    return first, second, member


@pytest.mark.parametrize("groups", [14, 40])
def test_equal_models_are_told_apart_at_most_as_often_as_promised(groups: int) -> None:
    rng = np.random.default_rng(groups)
    found = sum(lead(*grouped(rng, groups=groups, size=30, better=0.0)).is_real for _ in range(TRIALS))
    # 2.5 % on one side, clipping makes the tilt lose a little; 0.9 points are two and a half standard errors.
    assert found / TRIALS < 0.034
    rng = np.random.default_rng(groups)
    alone = sum(lead(*grouped(rng, groups=groups, size=30, better=0.0)[:2]).is_real for _ in range(TRIALS))
    assert alone / TRIALS > 0.05, "without the groups the interval is too narrow: they are there for a reason"


def test_a_model_that_is_clearly_better_is_found() -> None:
    rng = np.random.default_rng(1)
    found = sum(lead(*grouped(rng, groups=14, size=30, better=0.2)).is_real for _ in range(200))
    assert found > 180


def test_lead_is_the_difference_of_accuracies() -> None:
    first, second = np.array([1, 1, 1, 0, 1, 0], bool), np.array([0, 1, 0, 0, 1, 1], bool)
    told = lead(first, second)
    assert told.mean == pytest.approx(first.mean() - second.mean())
    assert told.low < told.mean < told.high
    backwards = lead(second, first)
    assert (backwards.mean, backwards.low) == (pytest.approx(-told.mean), pytest.approx(-told.high))


def test_few_groups_know_nothing() -> None:
    first, second = np.ones(300, bool), np.zeros(300, bool)
    told = lead(first, second, np.repeat([0, 1, 2], 100))
    assert (told.low, told.high, told.is_real) == (-1.0, 1.0, False)


@pytest.mark.parametrize(("df", "table"), [(3, 3.182), (5, 2.571), (13, 2.160), (30, 2.042), (1000, 1.962)])
def test_quantiles_of_students_t(df: int, table: float) -> None:
    assert _t_quantile(df) == pytest.approx(table, rel=0.01)
