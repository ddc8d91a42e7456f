"""MultiKrum's choice, then by coordinate the mean of the values nearest to its median (El Mhamdi et al., ICML 2018).

Needs 4 · ``num_malicious_nodes`` + 3 accepted updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.training.aggregation.gram import Matrix, nearest_to_their_neighbours
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    num_malicious_nodes: int = 0

    def __post_init__(self) -> None:
        number("num_malicious_nodes", self.num_malicious_nodes, low=0, high=1000, code="invalid_option", whole=True)


def choose(options: Options, gram: Matrix) -> NDArray[np.intp]:
    """The updates that are looked at: all but two for each liar. Raises ValueError for too few of them."""
    liars, count = options.num_malicious_nodes, len(gram)
    if count < 4 * liars + 3:
        raise ValueError(f"it needs {4 * liars + 3} updates to stand {liars} liars")
    return nearest_to_their_neighbours(gram, liars=liars, count=count - 2 * liars)


def combine(options: Options, values: NDArray[Any]) -> NDArray[Any]:
    """Of each column of (n, m) the mean of the n - 2 · liars values nearest to its median."""
    keep = len(values) - 2 * options.num_malicious_nodes
    apart = np.abs(values - np.median(values, axis=0))
    nearest = np.argpartition(apart, keep - 1, axis=0)[:keep]
    means: NDArray[Any] = np.take_along_axis(values, nearest, axis=0).mean(axis=0)
    return means


def build(options: Options) -> Strategy:
    from fogline_server.training.aggregation.coordinatewise import Coordinatewise

    return Coordinatewise(partial(combine, options), choose=partial(choose, options))
