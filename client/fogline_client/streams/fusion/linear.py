"""On the straight line between the two samples around the instant: for what moves smoothly, as acceleration does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fogline_client.streams.fusion.base import Times, Values


def linear(times: Times, values: Values, grid: Times, max_gap_s: float) -> tuple[Values, NDArray[np.bool_]]:
    """``x(g) = x[i] + (x[i+1] - x[i]) (g - t[i]) / (t[i+1] - t[i])`` for ``t[i] ≤ g ≤ t[i+1]``.

    Stands if ``t[i+1] - t[i] ≤ max_gap_s``; a sample at the very instant stands by itself.
    """
    right = np.searchsorted(times, grid, side="left")
    after = np.minimum(right, len(times) - 1)
    exact = times[after] == grid
    before = np.where(exact, after, np.maximum(right - 1, 0))
    span = times[after] - times[before]
    between = (right > 0) & (right < len(times)) & (span <= max_gap_s)
    share = (grid - times[before]) / np.where(span > 0, span, 1.0)
    start = values[before].astype(np.float64)
    fused = start + (values[after] - start) * np.where(exact, 0.0, share)[:, None]
    return fused.astype(np.float32), exact | between


FUSION = linear
