"""What fusion is. To add a method, add a module here with a ``FUSION``: a function as :class:`Fusion` describes it."""

from __future__ import annotations

from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fogline_shared.plugins import load_module

Times = NDArray[np.float64]
Values = NDArray[np.float32]


class Fusion(Protocol):
    """Values of one sensor at the instants of a grid. The right one needs no sample later than the first at or after it."""

    def __call__(self, times: Times, values: Values, grid: Times, max_gap_s: float) -> tuple[Values, NDArray[np.bool_]]:
        """``times`` (n,) ascending and ``values`` (n, channels), at least one; ``grid`` (m,) ascending; seconds.

        Returns values (m, channels) and which of them stand (m,): where samples are too far apart, they do not.
        """


def load_fusion(name: str) -> Fusion:
    """The method of that name; raise InvalidInput ``unknown_fusion``."""
    return cast("Fusion", load_module("fogline_client.streams.fusion", name).FUSION)
