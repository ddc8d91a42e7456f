"""Local differential privacy: a device clips its update and adds noise to it before anything leaves. Pure.

Whatever the device has learned, what it sends could nearly as well be from any other update that is no longer than the clip: two of
those are at most twice the clip apart, which is what the noise is measured in.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.checks import number
from fogline_shared.privacy import noise
from fogline_shared.privacy.accountant import NOISE

CLIP = (1e-6, 1e6)
# The record by which a reply says that it was made private, and what such a reply tells beside its parameters: nothing.
MARK = "privacy"
UNTOLD: Mapping[str, float] = {"num-examples": 1, "loss": 0.0}
_CLIP, _NOISE = "local_clip", "local_noise_multiplier"
# A Gaussian vector is longer than its usual length by so many standard deviations with a chance of 1e-14.
_NEVER = 8.0


@dataclass(frozen=True, kw_only=True)
class Protected:
    """What may leave the device. ``fingerprint``: tells this release from others, and stays here."""

    arrays: Mapping[str, NDArray[Any]]
    fingerprint: str

    @property
    def seed(self) -> int:
        """For whatever else is drawn about this release: it tells nothing of the data, and not the noise's key."""
        return int(self.fingerprint[-15:], 16)


@dataclass(frozen=True, kw_only=True)
class Local:
    """``noise_multiplier``: the noise's standard deviation in each value, in lengths of twice the clip.

    Raises InvalidInput ``invalid_privacy``, naming the field and its range.
    """

    clip: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        number(_CLIP, self.clip, low=CLIP[0], high=CLIP[1], code="invalid_privacy")
        number(_NOISE, self.noise_multiplier, low=NOISE[0], high=NOISE[1], code="invalid_privacy")

    @classmethod
    def asked(cls, config: Mapping[str, Any]) -> Local | None:
        """What a task asks of its device; None: no noise."""
        if _CLIP not in config and _NOISE not in config:
            return None
        return cls(clip=config.get(_CLIP, math.nan), noise_multiplier=config.get(_NOISE, math.nan))

    def config(self) -> dict[str, float]:
        """For the task."""
        return {_CLIP: float(self.clip), _NOISE: float(self.noise_multiplier)}

    @property
    def deviation(self) -> float:
        """Standard deviation of the noise in each value."""
        return 2 * self.clip * self.noise_multiplier

    def longest(self, values: int) -> float:
        """No honest update of so many values is longer, but for a chance of 1e-14."""
        return self.clip + self.deviation * (math.sqrt(values) + _NEVER)

    def protect(
        self, trained: Mapping[str, NDArray[Any]], sent: Mapping[str, NDArray[Any]], secret: bytes
    ) -> Protected:
        """The parameters after training, as far as others may see them. The same update gets the same noise again.

        ``sent``: those before. An update with values that are not finite counts as none: that it is one would tell something.
        """
        moved = {name: new.astype(np.float64) - sent[name] for name, new in trained.items()}
        length = noise.length_of(moved)
        scale = noise.scale_to(self.clip, length) if math.isfinite(length) else 0.0
        moved = {name: scale * part if scale else np.zeros(part.shape) for name, part in moved.items()}
        key = noise.key_of(secret, f"{self.clip!r}/{self.noise_multiplier!r}/", moved)
        arrays = {}
        for name, part in moved.items():
            noised = sent[name] + part + self.deviation * noise.drawn(key, name, part.shape)
            arrays[name] = noised.astype(sent[name].dtype)
        return Protected(arrays=arrays, fingerprint=hashlib.sha256(key).hexdigest())
