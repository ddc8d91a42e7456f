"""Confidence bounds that hold at every sample size at once, so a gate may look whenever it likes.

The beta-binomial mixture martingale (Robbins, 1970; Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric,
nonasymptotic confidence sequences", Annals of Statistics, 2021) with Jeffreys' prior: for a true mean p,

    M(p) = B(½ + s, ½ + n − s) / B(½, ½) / (p^s · (1 − p)^(n − s))

is a non-negative martingale that starts at 1, so by Ville's inequality it ever reaches 1/α with chance at most α.
It stays a supermartingale for any values in [0, 1] with mean p, not only for 0 and 1, since the likelihood ratio is
convex in the value: the same bounds serve rates and mean confidences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import lgamma, log

_STEPS = 60


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A confidence sequence at its present sample size; [0, 1] without data."""

    low: float
    high: float


def interval(total: float, count: float, *, alpha: float) -> Interval:
    """Bounds on the mean of values in [0, 1] whose sum is ``total`` over ``count`` values, at level 1 − ``alpha``."""
    if count <= 0:
        return Interval(low=0.0, high=1.0)
    total = min(max(total, 0.0), count)
    mean = total / count
    constant = _log_beta(0.5 + total, 0.5 + count - total) - _log_beta(0.5, 0.5)

    def excluded(p: float) -> bool:
        # A mean of 0 or 1 cannot have given these values; bisection reaches both when the mean is next to one.
        if (total and p <= 0.0) or (count > total and p >= 1.0):
            return True
        likelihood = (total * log(p) if total else 0.0) + ((count - total) * log(1 - p) if count > total else 0.0)
        return constant - likelihood >= -log(alpha)

    # M(p) falls up to the mean and rises after it: one crossing a side.
    low = _cross(0.0, mean, excluded) if total else 0.0
    high = _cross(1.0, mean, excluded) if total < count else 1.0
    return Interval(low=low, high=high)


def _cross(outside: float, inside: float, excluded: Callable[[float], bool]) -> float:
    """Bisect to the excluded value nearest to the mean; errs outwards."""
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        if excluded(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
