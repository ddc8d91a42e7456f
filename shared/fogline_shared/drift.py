"""Input drift: how far the inputs of a device are from those a release was checked with, without either leaving its place.

An artifact's manifest carries a :class:`Reference`, which says how a few features of an example (per channel its mean and its
spread) are distributed over the data at the cloud: the edges of eight bins and how many examples fell into each. A device counts
its own inputs into the same bins (:class:`InputCounts`) and computes the population stability index of each feature,
``sum((q - p) * ln(q / p))`` over the bins. By the usual rule of thumb below 0.1 nothing has changed, above 0.25 much has (Siddiqi,
Credit Risk Scorecards, 2006). Between samples of m and n examples of the same distribution it is (1/m + 1/n) times a
chi-square variable with seven degrees of freedom (Yurdakul and Naranjo, Journal of Risk Model Validation, 2020): from
``FEWEST`` on both sides one is above 0.25 by chance less than once in a thousand times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

BINS = 8
MOST_FEATURES = 16
# Examples on either side without which an index would be noise.
FEWEST = 200
# Of one channel of one example: every n-th value of a longer one.
_MOST_VALUES = 256
# Added to the count of each bin, since the index of an empty one would be infinite.
_HALF = 0.5


class Features:
    """What is looked at in examples of a shape, channels first. ``names``: ``mean_0`` …, ``spread_0`` …; of numbers ``value_0`` ….

    Of more channels than ``MOST_FEATURES`` allow some are taken, spread evenly.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        channels, self._values = shape[0], math.prod(shape[1:])
        alone = self._values == 1
        room = MOST_FEATURES if alone else MOST_FEATURES // 2
        self._every, self._stride = -(-channels // room), -(-self._values // _MOST_VALUES)
        while (
            len(shape) > 2 and math.gcd(self._stride, shape[-1]) > 1
        ):  # or an image would be looked at in a few columns
            self._stride += 1
        kinds = ("value",) if alone else ("mean", "spread")
        self.names = tuple(f"{kind}_{channel}" for kind in kinds for channel in range(0, channels, self._every))
        self._channels, self._alone = channels, alone

    def of(self, examples: NDArray[np.generic]) -> FloatArray:
        """The features, (n, features), of (n, *shape)."""
        return self.of_taken(self._values_of(examples))

    def take(self, x: NDArray[np.generic]) -> FloatArray:
        """A copy, (channels, values), of what is looked at in one example (1, *shape), to be looked at later."""
        copy: FloatArray = self._values_of(x)[0].copy()
        return copy

    def of_taken(self, x: FloatArray) -> FloatArray:
        """The features, (n, features), of ``take``'s copies, (n, channels, values)."""
        if self._alone:
            return x.reshape(len(x), -1)
        mean = x.mean(axis=2, dtype=np.float64)
        centred = x - mean[:, :, None]
        spread = np.sqrt((centred * centred).mean(axis=2))
        features: FloatArray = np.concatenate((mean, spread), axis=1).astype(np.float32)
        return features

    def _values_of(self, examples: NDArray[np.generic]) -> FloatArray:
        x = examples.reshape(-1, self._channels, self._values)[:, :: self._every, :: self._stride]
        values: FloatArray = x.astype(np.float32, copy=False)
        return values


@dataclass(frozen=True, kw_only=True)
class Reference:
    """``edges``: of each feature ``BINS - 1`` that do not fall, a value on an edge is below it; ``counts``: ``BINS`` each."""

    edges: tuple[tuple[float, ...], ...]
    counts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, examples: FloatArray) -> Reference | None:
        """From examples (n, *shape) in raw units; None: fewer than ``FEWEST``, or values that are not finite."""
        if len(examples) < FEWEST or not np.isfinite(examples).all():
            return None
        values = Features(examples.shape[1:]).of(examples)
        cuts = np.quantile(values.astype(np.float64), np.arange(1, BINS) / BINS, axis=0).T
        edges = tuple(tuple(_short(row)) for row in cuts)
        above = _above(values, np.asarray(edges, np.float32)).sum(axis=0)
        counts = _in_bins(above, len(values))
        return cls(edges=edges, counts=tuple(tuple(map(int, row)) for row in counts))

    @classmethod
    def from_json(cls, raw: Mapping[str, Any], shape: Sequence[int]) -> Reference:
        """Inverse of ``asdict``; raises ValueError, KeyError or TypeError unless it is one for examples of this shape."""
        edges = tuple(tuple(float(edge) for edge in row) for row in raw["edges"])
        counts = tuple(tuple(int(count) for count in row) for row in raw["counts"])
        wanted = len(Features(shape).names)
        if (len(edges), len(counts)) != (wanted, wanted):
            raise ValueError(f"a reference of {len(edges)} features, this input has {wanted}")
        if any(len(row) != BINS - 1 or not _rises(row) for row in edges):
            raise ValueError(f"a feature has {BINS - 1} finite edges that do not fall")
        if any(len(row) != BINS or min(row) < 0 or not 0 < sum(row) < 2**53 for row in counts):
            raise ValueError(f"a feature has {BINS} counts of examples")
        return cls(edges=edges, counts=counts)


class InputCounts:
    """A device's inputs in a reference's bins. Not thread-safe. ``inputs``: how many were counted."""

    def __init__(self, reference: Reference, shape: Sequence[int]) -> None:
        self.features = Features(shape)
        self._edges = np.asarray(reference.edges, np.float32)
        self._expected = np.asarray(reference.counts, np.float64)
        self._above = np.zeros(self._edges.shape, np.int64)
        self.inputs = 0

    def add(self, taken: FloatArray) -> None:
        """Count examples as :meth:`Features.take` gives them, (n, channels, values)."""
        with np.errstate(invalid="ignore", over="ignore"):  # infinities are counted like any other value
            values = self.features.of_taken(taken)
        self._above += _above(values, self._edges).sum(axis=0)
        self.inputs += len(taken)

    def psi(self) -> dict[str, float]:
        """The population stability index of each feature, by name."""
        seen = _shares(_in_bins(self._above, self.inputs))
        expected = _shares(self._expected)
        index = ((seen - expected) * np.log(seen / expected)).sum(axis=1)
        return {name: round(float(value), 4) for name, value in zip(self.features.names, index, strict=True)}


def _above(values: FloatArray, edges: FloatArray) -> NDArray[np.bool_]:
    """(n, features, BINS - 1): whether a value is above an edge."""
    above: NDArray[np.bool_] = values[:, :, None] > edges
    return above


def _in_bins(above: NDArray[np.integer], total: int) -> NDArray[np.int64]:
    """(features, BINS): how many of ``total`` values lie between the edges that so many were above."""
    ends = np.ones((len(above), 1), np.int64)
    return -np.diff(np.concatenate((total * ends, above, 0 * ends), axis=1))


def _shares(counts: NDArray[Any]) -> NDArray[np.float64]:
    counts = counts + _HALF
    shares: NDArray[np.float64] = counts / counts.sum(axis=1, keepdims=True)
    return shares


def _short(edges: NDArray[np.float64]) -> list[float]:
    """The edges with as many digits as tell them apart: a thousandth of their range."""
    reach = float(edges[-1] - edges[0])
    if reach <= 0:
        return [float(f"{edge:.6g}") for edge in edges]
    return [round(float(edge), 3 - math.floor(math.log10(reach))) for edge in edges]


def _rises(row: Sequence[float]) -> bool:
    return all(map(math.isfinite, row)) and all(low <= high for low, high in pairwise(row))
