"""From the logits of many models to those of one teacher.

Members come one after another. Mean and entropy keep one sum; median and trimmed mean keep every member's logits, which are
small beside models: members x examples x classes x 4 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from fogline_server.training.ensemble.spec import ENTROPY, MEAN, MEDIAN, Ensemble
from fogline_shared.errors import Conflict

Logits = NDArray[np.float64]


def fuse(ensemble: Ensemble, members: Iterable[Logits]) -> tuple[Logits, int]:
    """The teacher's logits (n, classes) and how many members there were, each (n, classes).

    A member that is not finite is left out. Raises Conflict ``no_ensemble`` when none is left.
    """
    usable = (logits for logits in members if np.isfinite(logits).all())
    fused, count = _summed(ensemble.fusion, usable) if ensemble.fusion in {MEAN, ENTROPY} else _sorted(ensemble, usable)
    if fused is None:
        raise Conflict("no_ensemble", "no device's model gave finite logits on the transfer set")
    return fused, count


def _summed(fusion: str, members: Iterable[Logits]) -> tuple[Logits | None, int]:
    """Mean over members; with ``entropy`` each weighs, example by example, exp(-H) of its own prediction's entropy H."""
    total: Logits | None = None
    weights: Logits = np.zeros(1)
    count = 0
    for logits in members:
        weight = np.exp(-entropy(logits))[:, None] if fusion == ENTROPY else np.ones((len(logits), 1))
        total = weight * logits if total is None else total + weight * logits
        weights = weights + weight
        count += 1
    return (None if total is None else total / weights), count


def _sorted(ensemble: Ensemble, members: Iterable[Logits]) -> tuple[Logits | None, int]:
    kept = [logits.astype(np.float32) for logits in members]
    if not kept:
        return None, 0
    ordered = np.sort(np.stack(kept), axis=0)
    if ensemble.fusion == MEDIAN:
        median: Logits = np.median(ordered, axis=0).astype(np.float64)
        return median, len(kept)
    cut = min(int(ensemble.trim * len(kept)), (len(kept) - 1) // 2)
    mean: Logits = ordered[cut : len(kept) - cut].mean(axis=0, dtype=np.float64)
    return mean, len(kept)


def entropy(logits: Logits) -> Logits:
    """Of the softmax of each row, in nats: (n,)."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    log_p = shifted - log_total
    value: Logits = -(np.exp(log_p) * log_p).sum(axis=1)
    return value
