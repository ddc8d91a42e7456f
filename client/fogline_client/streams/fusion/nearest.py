"""The sample nearest in time: for what must not be averaged, as codes and counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fogline_client.streams.fusion.base import Times, Values


def nearest(times: Times, values: Values, grid: Times, max_gap_s: float) -> tuple[Values, NDArray[np.bool_]]:
    """``x(g) = x[i]`` with the least ``|t[i] - g|``, the earlier of two; stands if that is at most ``max_gap_s``."""
    right = np.searchsorted(times, grid, side="left")
    before, after = np.maximum(right - 1, 0), np.minimum(right, len(times) - 1)
    earlier = np.abs(grid - times[before]) <= np.abs(times[after] - grid)
    chosen = np.where(earlier, before, after)
    return values[chosen], np.abs(times[chosen] - grid) <= max_gap_s


FUSION = nearest
