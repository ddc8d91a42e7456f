"""Privacy over a run: the mechanism of each round, and the clip that follows from what was released. For live and simulated runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.training.privacy.central import Central
from fogline_server.training.privacy.spec import CLIP, Privacy

_CLIP = "privacy/clip"


class PrivateRun:
    """``secret``: what the noise is drawn from. The clip of an adaptive run is part of its checkpoint."""

    def __init__(self, privacy: Privacy, secret: bytes) -> None:
        self._privacy, self._secret = privacy, secret
        self._clip = float(privacy.clip)

    def round(self, number: int, *, asked: int) -> Central:
        """The mechanism of a round."""
        return Central(
            clip=self._clip,
            noise_multiplier=self._privacy.update_noise,
            count_noise=self._privacy.noise_of_count,
            asked=asked,
            number=number,
            secret=self._secret,
        )

    def follow(self, released: Mapping[str, float]) -> None:
        """Move the clip towards the wanted quantile of the updates' lengths, by a round's released metrics."""
        if self._privacy.clip_quantile is not None:
            too_many = released["within_clip"] - self._privacy.clip_quantile
            low, high = CLIP
            self._clip = min(high, max(low, self._clip * math.exp(-self._privacy.clip_rate * too_many)))

    def state(self) -> dict[str, NDArray[Any]]:
        """For the checkpoint; nothing when the clip is fixed."""
        return {} if self._privacy.clip_quantile is None else {_CLIP: np.array([self._clip])}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Inverse of :meth:`state`; other names are somebody else's. Without a clip: as the run began."""
        self._clip = float(state[_CLIP][0]) if _CLIP in state else float(self._privacy.clip)
