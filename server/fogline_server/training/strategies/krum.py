"""The update closest to its neighbours (Blanchard et al., NeurIPS 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fogline_server.training.aggregation.gram import Matrix, Vector, nearest_to_their_neighbours
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    num_malicious_nodes: int = 1

    def __post_init__(self) -> None:
        number("num_malicious_nodes", self.num_malicious_nodes, low=0, high=1000, code="invalid_option", whole=True)


def weigh(options: Options, gram: Matrix, _shares: Vector) -> Vector:
    """1 for the chosen update, 0 for all others."""
    coefficients = np.zeros(len(gram))
    coefficients[nearest_to_their_neighbours(gram, liars=options.num_malicious_nodes, count=1)] = 1.0
    return coefficients


def build(options: Options) -> Strategy:
    from fogline_server.training.aggregation.geometric import Geometric

    return Geometric(partial(weigh, options), chooses=True)
