"""Coordinate-wise median of the updates (Yin et al., ICML 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    """None."""


def combine(values: NDArray[Any]) -> NDArray[Any]:
    """Medians of the columns of (n, m)."""
    medians: NDArray[Any] = np.median(values, axis=0, overwrite_input=True)
    return medians


def build(_options: Options) -> Strategy:
    from fogline_server.training.aggregation.coordinatewise import Coordinatewise

    return Coordinatewise(combine)
