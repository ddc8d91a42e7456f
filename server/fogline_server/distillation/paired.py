"""How much better one model is than another on the same examples, and how sure that is. Pure.

Both models answer every example, so what counts is the difference by example: how hard the examples are cancels out.
Examples of one group (windows of one recording) are right and wrong together; the standard error therefore adds up
differences by group before it squares them (cluster-robust; Cameron, Miller, "A Practitioner's Guide to Cluster-Robust
Inference", J. Human Resources 50(2), 2015), and Student's t has one degree of freedom less than there are groups.

Two good models disagree on a handful of examples, of which t is too sure. So a lead must also pass the exact test: were
the models interchangeable, each group's difference could as well have the other sign (Fisher, "The Design of Experiments",
1935, §21). Where every example is a group of its own that is McNemar's test (Psychometrika 12, 1947).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.recipe import LabelArray

CONFIDENCE = 0.95
# Student's t by its expansion in 1/df (Abramowitz, Stegun, 26.7.5) is good to a percent from here on.
_FEWEST_GROUPS = 4
# Coefficients by power of z, of df^-1, df^-2 and df^-3.
_EXPANSION: Sequence[tuple[Sequence[float], float]] = (
    ((0, 1, 0, 1), 4.0),
    ((0, 3, 0, 16, 0, 5), 96.0),
    ((0, -15, 0, 17, 0, 19, 0, 3), 384.0),
)


@dataclass(frozen=True, kw_only=True)
class Lead:
    """``mean``: accuracy of the first minus accuracy of the second, a share. ``low``, ``high``: its 95 % interval.

    With fewer than four groups nothing is known, and the interval is everything: -1 to 1. ``p``: the chance of such a lead
    or a larger one between interchangeable models.
    """

    mean: float
    low: float
    high: float
    groups: int
    p: float

    @property
    def is_real(self) -> bool:
        """Whether the first is better by more than chance explains, at :data:`CONFIDENCE` (a half of the rest each side)."""
        return self.low > 0.0 and self.p <= (1.0 - CONFIDENCE) / 2.0


def lead(first: NDArray[np.bool_], second: NDArray[np.bool_], groups: LabelArray | None = None) -> Lead:
    """Compare two models by which of the same n examples each has right, both (n,); ``groups`` (n,)."""
    differences = first.astype(np.float64) - second.astype(np.float64)
    _, member = np.unique(np.arange(len(differences)) if groups is None else groups, return_inverse=True)
    count = int(member.max()) + 1
    mean = float(differences.mean())
    p = _chance(np.bincount(member, weights=differences))
    if count < _FEWEST_GROUPS:
        return Lead(mean=mean, low=-1.0, high=1.0, groups=count, p=p)
    sums = np.bincount(member, weights=differences - mean)
    error = math.sqrt(count / (count - 1) * float(sums @ sums)) / len(differences)
    reach = _t_quantile(count - 1) * error
    return Lead(mean=mean, low=max(-1.0, mean - reach), high=min(1.0, mean + reach), groups=count, p=p)


def _chance(sums: NDArray[Any]) -> float:
    """How often the total of these whole numbers is as large as it is, or larger, when each may have either sign."""
    sizes, counts = np.unique(np.abs(sums), return_counts=True)
    most = int(sizes @ counts)
    # A sign by chance has the cosine for its characteristic function; theirs multiply, and one transform gives the shares.
    angles = 2.0 * np.pi * np.arange(2 * most + 1) / (2 * most + 1)
    spectrum = np.ones_like(angles)
    for size, times in zip(sizes, counts, strict=True):
        spectrum *= np.cos(size * angles) ** times
    shares = np.fft.fftshift(np.fft.fft(spectrum).real) / len(angles)
    return float(np.clip(shares[most + round(float(sums.sum())) :].sum(), 0.0, 1.0))


def _t_quantile(df: int) -> float:
    """The two-sided quantile of Student's t at :data:`CONFIDENCE`."""
    z = NormalDist().inv_cdf((1.0 + CONFIDENCE) / 2.0)
    quantile = z
    for order, (coefficients, divisor) in enumerate(_EXPANSION, start=1):
        quantile += sum(c * math.pow(z, power) for power, c in enumerate(coefficients)) / divisor / math.pow(df, order)
    return quantile
