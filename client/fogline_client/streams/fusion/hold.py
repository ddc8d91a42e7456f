"""The newest sample that is not later than the instant (zero-order hold): for states that change at samples."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fogline_client.streams.fusion.base import Times, Values


def hold(times: Times, values: Values, grid: Times, max_gap_s: float) -> tuple[Values, NDArray[np.bool_]]:
    """``x(g) = x[i]`` with ``i`` the last of ``t[i] ≤ g``; stands if ``g - t[i] ≤ max_gap_s``."""
    last = np.searchsorted(times, grid, side="right") - 1
    kept = np.maximum(last, 0)
    return values[kept], (last >= 0) & (grid - times[kept] <= max_gap_s)


FUSION = hold
