"""What noise costs: Rényi differential privacy (RDP) of Gaussian noise, composed over rounds, told as (ε, δ). Pure.

One release is a sum of vectors, one a device, none longer than C, plus Gaussian noise of standard deviation
``noise_multiplier`` · C in each coordinate. At order α its RDP is α / (2 · noise_multiplier²) (Mironov, CSF 2017). When each
device takes part by a secret coin of its own with probability ``sampling_rate`` (Poisson sampling), it is less (Mironov, Talwar,
Zhang, 2019, arXiv:1908.10530). RDP adds up over releases; ε at a δ comes from the best order (Canonne, Kamath, Steinke, NeurIPS
2020, proposition 12).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput

ORDERS: tuple[float, ...] = (*(1 + x / 20 for x in range(1, 20)), *range(2, 65), 80, 96, 128, 192, 256, 384, 512, 1024)
NOISE = (0.1, 1000.0)
ROUNDS = (1, 1_000_000)
EPSILON = (0.001, 1000.0)
DELTA = (1e-15, 0.1)
_STEPS = 100


@dataclass(frozen=True, kw_only=True)
class Releases:
    """``rounds`` releases of the same kind. Raises InvalidInput ``invalid_privacy``, naming the field and its range."""

    noise_multiplier: float
    rounds: int
    sampling_rate: float = 1.0

    def __post_init__(self) -> None:
        low, high = NOISE
        number("noise_multiplier", self.noise_multiplier, low=low, high=high, code="invalid_privacy")
        number("rounds", self.rounds, low=0, high=ROUNDS[1], code="invalid_privacy", whole=True)
        number("sampling_rate", self.sampling_rate, low=1e-6, high=1, code="invalid_privacy")

    def rdp(self) -> list[float]:
        """At each of :data:`ORDERS`."""
        return [self.rounds * _rdp(order, self.noise_multiplier, self.sampling_rate) for order in ORDERS]


def epsilon(spent: Sequence[Releases], delta: float) -> float:
    """ε of all that was released together, at ``delta``; 0 for nothing."""
    spent = [each for each in spent if each.rounds]
    if not spent:
        return 0.0
    total = [sum(column) for column in zip(*(each.rdp() for each in spent), strict=True)]
    return max(0.0, min(_epsilon_at(order, rdp, delta) for order, rdp in zip(ORDERS, total, strict=True)))


def least_noise(target: float, delta: float, rounds: int) -> float:
    """The smallest noise multiplier, to a thousandth, whose ``rounds`` releases stay within ε ``target``.

    Raises InvalidInput ``invalid_privacy`` for numbers out of range and for a target that no noise in range meets.
    """
    for name, value, (low, high) in (("epsilon", target, EPSILON), ("delta", delta, DELTA)):
        number(name, value, low=low, high=high, code="invalid_privacy")

    def cost(noise: float) -> float:
        return epsilon([Releases(noise_multiplier=noise, rounds=rounds)], delta)

    low, high = NOISE
    if cost(high) > target:
        raise InvalidInput("invalid_privacy", f"epsilon {target:g} over {rounds} rounds needs more noise than {high:g}")
    for _ in range(_STEPS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if cost(middle) > target else (low, middle)
    return next(rounded for up in range(3) if cost(rounded := (math.ceil(high * 1000) + up) / 1000) <= target)


def _rdp(order: float, noise: float, rate: float) -> float:
    everyone = order / (2 * noise**2)
    if rate == 1.0:
        return everyone
    # (α - 1) · RDP is convex in α and 0 at α = 1, so a chord between whole orders bounds it from above (Wang, Balle,
    # Kasiviswanathan, AISTATS 2019, corollary 10).
    below = math.floor(order)
    share = order - below
    moment = (1 - share) * _log_moment(below, noise, rate)
    if share:
        moment += share * _log_moment(below + 1, noise, rate)
    return min(everyone, moment / (order - 1))


def _log_moment(order: int, noise: float, rate: float) -> float:
    """(α - 1) · RDP of the sampled Gaussian at a whole order."""
    if order == 1:
        return 0.0
    terms = [
        math.lgamma(order + 1)
        - math.lgamma(k + 1)
        - math.lgamma(order - k + 1)
        + (order - k) * math.log1p(-rate)
        + k * math.log(rate)
        + k * (k - 1) / (2 * noise**2)
        for k in range(order + 1)
    ]
    largest = max(terms)
    return largest + math.log(math.fsum(math.exp(term - largest) for term in terms))


def _epsilon_at(order: float, rdp: float, delta: float) -> float:
    return rdp + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
