"""Streams that need no windows: each sample is what the model is asked, a camera's frame say."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import ArrayLike

from fogline_client.streams.windows import Frame


class Frames:
    """In the place of :class:`~fogline_client.streams.windows.Fuser`, with the same counters."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()
        self.noted: Counter[str] = Counter()

    def add(self, name: str, x: ArrayLike, *, time: float, arrived: float, truth: int | None = None) -> list[Frame]:
        """The sample, if it has numbers only; whose it is does not matter."""
        del name
        try:
            values = np.asarray(x, dtype=np.float32)
        except (TypeError, ValueError):
            self.dropped["bad_shape"] += 1
            return []
        if not np.isfinite(values).all():
            self.dropped["nan"] += 1
            return []
        return [Frame(x=values, time=time, arrived=arrived, truth=truth)]

    def flush(self) -> list[Frame]:
        """Nothing is kept."""
        return []
