"""The point with the least sum of distances to the updates (RFA; Pillutla, Kakade, Harchaoui, IEEE TSP 2022).

Found by ``iterations`` steps of Weiszfeld's method, smoothed where a distance is below ``smoothing`` times the median length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fogline_server.training.aggregation.gram import Matrix, Vector, distances, lengths
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    iterations: int = 8
    smoothing: float = 1e-3

    def __post_init__(self) -> None:
        number("iterations", self.iterations, low=1, high=1000, code="invalid_option", whole=True)
        number("smoothing", self.smoothing, low=1e-9, high=1, code="invalid_option")


def weigh(options: Options, gram: Matrix, shares: Vector) -> Vector:
    """The median, as coefficients that sum to 1."""
    floor = max(options.smoothing * float(np.median(lengths(gram))), float(np.finfo(np.float64).tiny))
    point = shares
    for _ in range(options.iterations):
        pull = shares / np.maximum(distances(gram, point), floor)
        point = pull / pull.sum()
    return point


def build(options: Options) -> Strategy:
    from fogline_server.training.aggregation.geometric import Geometric

    return Geometric(partial(weigh, options))
