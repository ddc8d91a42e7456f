"""The bounds hold however often one looks, and are tight enough to be useful."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fogline_server.rollouts.sequential import interval


def test_without_data_everything_is_possible() -> None:
    nothing = interval(0, 0, alpha=0.01)
    assert (nothing.low, nothing.high) == (0.0, 1.0)


@given(count=st.integers(1, 10**7), share=st.floats(0, 1), alpha=st.sampled_from([0.001, 0.01, 0.05, 0.5]))
def test_the_mean_lies_between_the_bounds(count: int, share: float, alpha: float) -> None:
    bounds = interval(share * count, count, alpha=alpha)
    assert 0.0 <= bounds.low <= share + 1e-12
    assert share - 1e-12 <= bounds.high <= 1.0


@given(share=st.floats(0.05, 0.95), alpha=st.floats(0.001, 0.1))
def test_more_data_narrows(share: float, alpha: float) -> None:
    few, many = (interval(share * n, n, alpha=alpha) for n in (100, 10_000))
    assert many.high - many.low < few.high - few.low


@pytest.mark.parametrize("p", [0.02, 0.5, 0.9])
def test_looking_at_every_sample_errs_no_more_often_than_promised(p: float) -> None:
    rng = np.random.default_rng(7)
    alpha, wrong, runs = 0.1, 0, 300
    for _ in range(runs):
        sums = np.cumsum(rng.random(600) < p)
        for n in range(1, 601, 3):
            bounds = interval(float(sums[n - 1]), n, alpha=alpha)
            if not bounds.low <= p <= bounds.high:
                wrong += 1
                break
    assert wrong / runs <= alpha


def test_fractions_such_as_confidences_are_covered_too() -> None:
    rng = np.random.default_rng(8)
    wrong = 0
    for _ in range(200):
        sums = np.cumsum(rng.beta(2, 1, 500))
        wrong += any(
            not b.low <= 2 / 3 <= b.high for b in (interval(float(sums[n - 1]), n, alpha=0.1) for n in range(5, 501, 5))
        )
    assert wrong / 200 <= 0.1


def test_five_hundred_flawless_predictions_show_a_rate_below_two_percent() -> None:
    assert interval(0, 500, alpha=0.01).high < 0.02
