"""The accountant against Google's, and against what must hold whatever the numbers."""

from __future__ import annotations

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from hypothesis import given
from hypothesis import strategies as st

from fogline_shared.errors import InvalidInput
from fogline_shared.privacy.accountant import ORDERS, Releases, epsilon, least_noise


def googles(orders: list[float], noise: float, rate: float, rounds: int, delta: float) -> float:
    accountant = RdpAccountant(orders)
    gaussian = dp_accounting.GaussianDpEvent(noise)
    accountant.compose(gaussian if rate == 1 else dp_accounting.PoissonSampledDpEvent(rate, gaussian), rounds)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize("delta", [1e-3, 1e-6])
@pytest.mark.parametrize("rounds", [1, 30, 1000])
@pytest.mark.parametrize("noise", [0.6, 1.0, 3.0, 20.0])
def test_epsilon_is_googles(noise: float, rounds: int, delta: float) -> None:
    ours = epsilon([Releases(noise_multiplier=noise, rounds=rounds)], delta)
    assert ours == pytest.approx(googles(list(ORDERS), noise, 1.0, rounds, delta), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("rate", [0.2, 0.01, 0.001])
@pytest.mark.parametrize("noise", [0.6, 1.0, 3.0, 20.0])
def test_sampling_amplifies_as_googles_says_at_whole_orders(noise: float, rate: float) -> None:
    rdp = Releases(noise_multiplier=noise, rounds=30, sampling_rate=rate).rdp()
    for order, own in zip(ORDERS, rdp, strict=True):
        if order == int(order):
            accountant = RdpAccountant([order])
            accountant.compose(dp_accounting.PoissonSampledDpEvent(rate, dp_accounting.GaussianDpEvent(noise)), 30)
            assert own == pytest.approx(accountant._rdp[0], rel=1e-6, abs=1e-12)


def divergence(order: float, noise: float, rate: float) -> float:
    """The Rényi divergence of one sampled release from one without the device, or the other way round: by summation over a fine grid."""
    x, step = np.linspace(-40 * noise, 40 * noise, 400_001, retstep=True)
    without = -(x**2) / (2 * noise**2) - math.log(noise * math.sqrt(2 * math.pi))
    ratio = np.log1p(-rate) + np.log1p(rate / (1 - rate) * np.exp((2 * x - 1) / (2 * noise**2)))
    moments = [np.sum(np.exp(without + power * ratio)) * step for power in (order, 1 - order)]
    return max(math.log(moment) for moment in moments) / (order - 1)


@pytest.mark.parametrize("rate", [0.2, 0.01])
@pytest.mark.parametrize("noise", [1.0, 3.0])
def test_between_whole_orders_ours_is_a_bound_from_above(noise: float, rate: float) -> None:
    # Google's series does not converge at many of these orders: it tells more at 1.05 than at 2.
    own = dict(zip(ORDERS, Releases(noise_multiplier=noise, rounds=1, sampling_rate=rate).rdp(), strict=True))
    for order in ORDERS[:19:3]:
        assert divergence(order, noise, rate) * (1 - 1e-6) <= own[order] <= own[2] * (1 + 1e-9)
    assert own[2] == pytest.approx(divergence(2, noise, rate), rel=1e-6)


def test_releases_of_different_kinds_compose_as_googles_do() -> None:
    accountant = RdpAccountant(list(ORDERS))
    accountant.compose(dp_accounting.GaussianDpEvent(2.0), 10).compose(dp_accounting.GaussianDpEvent(5.0), 40)
    spent = [Releases(noise_multiplier=2.0, rounds=10), Releases(noise_multiplier=5.0, rounds=40)]
    assert epsilon(spent, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)


def test_nothing_costs_nothing() -> None:
    assert epsilon([], 1e-5) == epsilon([Releases(noise_multiplier=1.0, rounds=0)], 1e-5) == 0.0


@given(noise=st.floats(0.3, 50), rounds=st.integers(1, 500), rate=st.floats(0.01, 0.99))
def test_more_rounds_cost_more_and_more_noise_or_a_lot_less(noise: float, rounds: int, rate: float) -> None:
    def cost(*, noise: float = noise, rounds: int = rounds, rate: float = 1.0) -> float:
        return epsilon([Releases(noise_multiplier=noise, rounds=rounds, sampling_rate=rate)], 1e-5)

    assert cost() <= cost(rounds=rounds + 1)
    assert cost(noise=noise * 1.5) <= cost()
    assert cost(rate=rate) <= cost() * (1 + 1e-9)


@pytest.mark.parametrize(("target", "rounds"), [(0.5, 1), (1.0, 30), (8.0, 30), (8.0, 1000), (50.0, 10)])
def test_the_least_noise_meets_its_target_and_a_little_less_does_not(target: float, rounds: int) -> None:
    noise = least_noise(target, 1e-5, rounds)
    assert epsilon([Releases(noise_multiplier=noise, rounds=rounds)], 1e-5) <= target
    assert epsilon([Releases(noise_multiplier=noise - 0.0015, rounds=rounds)], 1e-5) > target


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"target": 0, "delta": 1e-5, "rounds": 1}, "epsilon must be a number from 0.001 to 1000"),
        ({"target": 1, "delta": 0.5, "rounds": 1}, "delta must be a number from 1e-15 to 0.1"),
        ({"target": 1, "delta": 1e-5, "rounds": 2.5}, "rounds must be an integer"),
        ({"target": 0.001, "delta": 1e-5, "rounds": 1_000_000}, "needs more noise than 1000"),
    ],
)
def test_numbers_out_of_range_are_refused_with_their_range(numbers: dict, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as refused:
        least_noise(**numbers)
    assert refused.value.code == "invalid_privacy"
