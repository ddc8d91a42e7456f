"""Each update averaged with its nearest, then the geometric median (NNM; Allouah et al., AISTATS 2023, arXiv:2302.01772).

Honest updates that differ because their devices' data do are drawn together before a robust rule compares them.
``liars`` is the share of the updates, rounded up, that each one leaves out as the farthest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fogline_server.training.aggregation.gram import Matrix, Vector, mix_with_neighbours
from fogline_server.training.strategies import geometric_median
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    liars: float = 0.4

    def __post_init__(self) -> None:
        number("liars", self.liars, low=0.0, high=0.49, code="invalid_option")


def weigh(options: Options, gram: Matrix, _shares: Vector) -> Vector:
    """The median of the mixed updates, as coefficients of the updates; all devices count alike, as in the paper."""
    count = len(gram)
    mixing = mix_with_neighbours(gram, liars=math.ceil(options.liars * count))
    median = geometric_median.weigh(geometric_median.Options(), mixing @ gram @ mixing.T, np.full(count, 1.0 / count))
    coefficients: Vector = median @ mixing
    return coefficients


def build(options: Options) -> Strategy:
    from fogline_server.training.aggregation.geometric import Geometric

    return Geometric(partial(weigh, options))
