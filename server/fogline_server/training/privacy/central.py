"""The mechanism: the mean of clipped updates and Gaussian noise (DP-FedAvg: McMahan et al., ICLR 2018). Pure.

The noise is drawn from a secret of the run, the round and the sum itself, by SHAKE-256. So a trainer that was killed and does its
round again releases the same bytes for the same updates, and what one secret gives for other updates has nothing to do with it:
were only round and secret its source, two releases of a round would differ by the bare difference of their sums. The
run's seed is public and cannot serve.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.training.admission import Tensor

# A variance of the running statistics falls in one round at most to this share of itself, whatever the noise.
_LEAST_VARIANCE = 0.1


@dataclass(frozen=True, kw_only=True)
class Central:
    """One round's release. ``asked``: how many devices were, the divisor, which no data changes."""

    clip: float
    noise_multiplier: float
    asked: int
    number: int
    secret: bytes

    def mean(
        self, updates: Iterable[Mapping[str, Tensor]], reference: Mapping[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """The new parameters: ``reference`` plus the noised mean. ``updates``: the parameters devices sent back, one in memory at a time."""
        total = {name: np.zeros(sent.shape) for name, sent in reference.items()}
        for update in updates:
            moved = {name: update[name].numpy().astype(np.float64) - sent for name, sent in reference.items()}
            length = math.sqrt(sum(float(np.sum(part**2)) for part in moved.values()))
            scale = min(1.0, self.clip / length) if length else 1.0
            for name, part in moved.items():
                total[name] += scale * part
        return {name: self._noised(name, total, sent) for name, sent in reference.items()}

    def _noised(self, name: str, total: Mapping[str, NDArray[Any]], sent: NDArray[Any]) -> NDArray[Any]:
        digest = hashlib.sha256()
        for part in total.values():
            digest.update(part.tobytes())
        about = f"{self.number}/{name}/".encode() + digest.digest()
        noise = gaussian(hmac.digest(self.secret, about, "sha256"), sent.size).reshape(sent.shape)
        new = sent + (total[name] + self.noise_multiplier * self.clip * noise) / self.asked
        if name.endswith("running_var"):
            new = np.maximum(new, _LEAST_VARIANCE * sent)
        kept: NDArray[Any] = new.astype(sent.dtype)
        return kept


def gaussian(key: bytes, count: int) -> NDArray[np.float64]:
    """Standard normal values from a key (Box, Muller), which do not tell the key."""
    pairs = (count + 1) // 2
    words = np.frombuffer(hashlib.shake_256(key).digest(16 * pairs), "<u8").reshape(2, pairs)
    uniform = ((words >> 11) + 1) / 2.0**53
    radius, angle = np.sqrt(-2 * np.log(uniform[0])), 2 * np.pi * uniform[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]
