"""Which of the pool's examples one device holds. A device's rows depend on its number alone: nobody keeps a table of a fleet.

Devices draw independently, so a fleet may be larger than the pool; two devices may then hold the same example.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fogline_server.simulation.choices import Amount, chance
from fogline_shared.errors import InvalidInput

Rows = NDArray[np.int64]

CHOICES: Mapping[str, Amount | None] = {
    "key": None,
    "dirichlet": Amount(low=0.001, high=1e6),
    "shards": Amount(low=1, high=10_000, whole=True),
}
# So that no label's share is nothing at all, however small alpha is.
_LEAST = 1e-12


def uniform(n: int, samples: int, rng: np.random.Generator) -> Rows:
    """``samples`` of n rows, ascending; all when there are no more."""
    return np.sort(rng.choice(n, min(n, samples), replace=False)).astype(np.int64)


def dirichlet(labels: NDArray[np.int64], samples: int, alpha: float, rng: np.random.Generator) -> Rows:
    """Rows whose labels follow shares drawn from a symmetric Dirichlet distribution, ascending.

    One device of Hsu, Qi, Brown, "Measuring the effects of non-identical data distribution for federated visual
    classification", 2019. Small ``alpha``: few labels a device; large: all alike. No row twice.
    """
    kinds, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weights = (rng.dirichlet(np.full(len(kinds), alpha)) + _LEAST)[place] / counts[place]
    # The smallest of exponential times with these rates are a weighted draw without replacement (Efraimidis, Spirakis, 2006).
    times = rng.standard_exponential(len(labels)) / weights
    return np.sort(np.argsort(times, kind="stable")[: min(samples, len(labels))]).astype(np.int64)


class Shards:
    """The pool sorted by label and cut into pieces, a few a device (McMahan et al., AISTATS 2017).

    Every piece is given out once before any is given out again. Raises InvalidInput ``invalid_simulation``.
    """

    def __init__(self, labels: NDArray[np.int64], samples: int, per_device: int, seed: int) -> None:
        samples = min(samples, len(labels))
        if per_device > samples:
            message = f"split shards:{per_device} needs at least {per_device} examples a device, not {samples}"
            raise InvalidInput("invalid_simulation", message, field="split")
        self._order = np.argsort(labels, kind="stable")
        self._size = samples // per_device
        self._count = len(labels) // self._size
        self._per_device = per_device
        self._deal = lru_cache(maxsize=8)(lambda deal: chance(seed, "shards", deal).permutation(self._count))

    @property
    def samples(self) -> int:
        """Examples a device holds, at most: a device between two deals may get one piece twice."""
        return self._size * self._per_device

    def rows(self, device: int) -> Rows:
        """The device's rows, ascending."""
        slots = range(device * self._per_device, (device + 1) * self._per_device)
        pieces = [int(self._deal(slot // self._count)[slot % self._count]) for slot in slots]
        own = [self._order[piece * self._size : (piece + 1) * self._size] for piece in pieces]
        return np.unique(np.concatenate(own)).astype(np.int64)
