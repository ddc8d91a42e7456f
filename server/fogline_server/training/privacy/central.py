"""The mechanism: the mean of clipped updates and Gaussian noise (DP-FedAvg: McMahan et al., ICLR 2018). Pure.

With adaptive clipping it also releases the share of updates that are within the clip, noised as well (Andrew, Thakkar, McMahan,
Ramaswamy, NeurIPS 2021). Both together cost what one release at the run's noise multiplier z does: the updates' noise is larger
by as much as the count's noise σ tells, z_Δ = (z^-2 - (2σ)^-2)^(-1/2).

The noise is drawn from a secret of the run, the round and the sum itself. So a trainer that was killed and does its round again
releases the same bytes for the same updates, and what one secret gives for other updates has nothing to do with it. The
run's seed is public and cannot serve.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.training.admission import Tensor
from fogline_shared.privacy import noise

# A variance of the running statistics falls in one round at most to this share of itself, whatever the noise.
_LEAST_VARIANCE = 0.1


@dataclass(frozen=True, kw_only=True)
class Release:
    """``arrays``: the new parameters; ``within``: noised share of the asked whose update was within the clip; None: not asked for."""

    arrays: Mapping[str, NDArray[Any]]
    clip: float
    within: float | None

    def metrics(self) -> dict[str, float]:
        """For the round's row: all of it may be seen."""
        told = {"clip": self.clip}
        return told if self.within is None else told | {"within_clip": self.within}


@dataclass(frozen=True, kw_only=True)
class Central:
    """One round's release. ``asked``: how many devices were, the divisor, which no data changes.

    ``noise_multiplier``: of the updates' sum; ``count_noise``: standard deviation of the noise in the number of updates
    within the clip; None: that number is not released.
    """

    clip: float
    noise_multiplier: float
    asked: int
    number: int
    secret: bytes
    count_noise: float | None = None

    def release(self, updates: Iterable[Mapping[str, Tensor]], reference: Mapping[str, NDArray[Any]]) -> Release:
        """``updates``: the parameters devices sent back, one in memory at a time; ``reference``: those they were sent."""
        total = {name: np.zeros(sent.shape) for name, sent in reference.items()}
        # A device adds or takes a half, so that one more or less changes the count by a half and not by one.
        count = np.zeros(1)
        for update in updates:
            moved = {name: update[name].numpy().astype(np.float64) - sent for name, sent in reference.items()}
            length = noise.length_of(moved)
            scale = noise.scale_to(self.clip, length)
            for name, part in moved.items():
                total[name] += scale * part
            count += 0.5 if length <= self.clip else -0.5
        secret = total if self.count_noise is None else {**total, "/count": count}
        key = noise.key_of(self.secret, f"{self.number}/", secret)
        within = None
        if self.count_noise is not None:
            noised = count[0] + self.count_noise * noise.drawn(key, "/count", (1,))[0]
            within = float(noised / self.asked + 0.5)
        arrays = {name: self._noised(name, key, total[name], sent) for name, sent in reference.items()}
        return Release(arrays=arrays, clip=self.clip, within=within)

    def _noised(self, name: str, key: bytes, total: NDArray[np.float64], sent: NDArray[Any]) -> NDArray[Any]:
        added = self.noise_multiplier * self.clip * noise.drawn(key, name, sent.shape)
        return floored(name, sent + (total + added) / self.asked, sent)


def floored(name: str, new: NDArray[Any], sent: NDArray[Any]) -> NDArray[Any]:
    """``new`` as ``sent`` is typed; of a running variance, which noise may bring below zero, no less than a share of the old."""
    if name.endswith("running_var"):
        new = np.maximum(new, _LEAST_VARIANCE * sent)
    kept: NDArray[Any] = new.astype(sent.dtype)
    return kept
