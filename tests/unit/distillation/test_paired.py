"""The interval of a lead is what it says: it holds the truth 95 times of 100, also when examples come in groups."""

from __future__ import annotations

import math

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
    found = sum(lead(*grouped(rng, groups=14, size=30, better=0.25)).is_real for _ in range(200))
    assert found > 180


def disagreeing(first: int, second: int, *, of: int = 14, size: int = 30) -> tuple[np.ndarray, ...]:
    """Two models right everywhere but once in each of some groups: the second in ``first`` of them, then the other."""
    member = np.repeat(np.arange(of), size)
    start = np.arange(of * size) % size == 0
    return ~(start & (first <= member) & (member < first + second)), ~(start & (member < first)), member


@pytest.mark.parametrize("of", [14, 40])
def test_a_handful_of_examples_is_chance_though_the_interval_says_otherwise(of: int) -> None:
    """Four to none falls to either of two equal models once in eight times: Student's t is too sure of so few."""
    four = lead(*disagreeing(4, 0, of=of))
    assert four.low > 0
    assert four.p == pytest.approx(1 / 16)
    assert not four.is_real
    assert lead(*disagreeing(9, 1, of=of)).is_real
    assert not lead(*disagreeing(1, 9, of=of)).is_real


@pytest.mark.parametrize(("first", "second"), [(3, 1), (10, 4), (20, 40), (0, 0)])
def test_without_groups_the_test_is_mcnemars(first: int, second: int) -> None:
    told = lead(*disagreeing(first, second, of=80)[:2])
    n = first + second
    assert told.p == pytest.approx(sum(math.comb(n, k) for k in range(first, n + 1)) / 2**n)


def test_all_of_a_group_counts_as_one_answer() -> None:
    member = np.repeat(np.arange(12), 25)
    told = lead(member >= 0, member >= 3, member)
    assert (told.mean, told.p) == (pytest.approx(0.25), pytest.approx(1 / 8))
    assert lead(member >= 0, member >= 9, member).p == pytest.approx(1 / 512)


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
