"""Updates clipped around where the last round moved (Karimireddy, He, Jaggi, ICML 2021, arXiv:2012.10333).

The centre starts at the previous round's combined update and moves, ``iterations`` times, by the mean of the differences from
it, none longer than ``ratio`` times their median length. All devices count alike, as in the paper: an attacker's claim of many
examples buys nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fogline_server.training.aggregation.gram import Matrix, Vector, distances, shrink
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

STATE = ("anchor",)


@dataclass(frozen=True, kw_only=True)
class Options:
    ratio: float = 1.0
    iterations: int = 3

    def __post_init__(self) -> None:
        number("ratio", self.ratio, low=0.01, high=1000, code="invalid_option")
        number("iterations", self.iterations, low=1, high=100, code="invalid_option", whole=True)


def weigh(options: Options, gram: Matrix, _shares: Vector) -> Vector:
    """The centre, as coefficients of the devices' updates and of the last row, the previous centre."""
    devices = len(gram) - 1
    centre = np.zeros(devices + 1)
    centre[-1] = 1.0
    for _ in range(options.iterations):
        far = distances(gram, centre)[:devices]
        pull = shrink(far, options.ratio * float(np.median(far))) / devices
        centre *= 1.0 - pull.sum()
        centre[:devices] += pull
    return centre


def build(options: Options) -> Strategy:
    from fogline_server.training.aggregation.geometric import Geometric

    return Geometric(partial(weigh, options), anchored=True, remembers=True)
