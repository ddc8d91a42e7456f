"""Split one data set over devices as a fleet would hold it: unevenly, and each device with labels of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fogline_shared.errors import InvalidInput

# Draws before a split is called impossible. A thousandth of them is usual.
_TRIES = 1000


def dirichlet(
    labels: ArrayLike, devices: int, *, alpha: float, seed: int = 0, smallest: int = 1
) -> Sequence[NDArray[np.int64]]:
    """Indices of each device's examples, ascending; together they are all of ``labels`` (n,), each index once.

    Of every label the devices get shares drawn from a symmetric Dirichlet distribution (Hsu, Qi, Brown, "Measuring the
    effects of non-identical data distribution for federated visual classification", 2019). Small ``alpha``: few labels
    a device; large: all alike. The same arguments give the same split on every machine. It is drawn again until every
    device has ``smallest`` examples.
    Raises InvalidInput ``invalid_partition`` for arguments out of range and ``impossible_partition`` for too few examples.
    """
    y = np.asarray(labels)
    if y.ndim != 1 or devices < 1 or not 0 < alpha < np.inf or smallest < 0:
        raise InvalidInput(
            "invalid_partition", "a partition needs labels (n,), devices from 1, alpha above 0 and smallest from 0"
        )
    rng = np.random.default_rng(seed)
    if devices * smallest <= len(y):
        for _ in range(_TRIES):
            parts = _draw(y, devices, alpha, rng)
            if min(map(len, parts)) >= smallest:
                return parts
    raise InvalidInput(
        "impossible_partition",
        f"{len(y)} examples do not give {devices} devices at least {smallest} each with alpha {alpha:g}",
    )


def _draw(y: NDArray[np.int64], devices: int, alpha: float, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    owner = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        indices = rng.permutation(np.flatnonzero(y == label))
        cuts = np.cumsum(rng.dirichlet(np.full(devices, alpha)))[:-1] * len(indices)
        owner[indices] = np.searchsorted(cuts, np.arange(len(indices)), side="right")
    return [np.flatnonzero(owner == device) for device in range(devices)]
