"""The mean of updates none of which may be long (Sun, Kairouz, Suresh, McMahan, 2019, arXiv:1911.07963).

An update longer than ``ratio`` times the round's median length is scaled down to that, so a lie can be told but not shouted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from fogline_server.training.aggregation.gram import Matrix, Vector, lengths, shrink
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    ratio: float = 1.0

    def __post_init__(self) -> None:
        number("ratio", self.ratio, low=0.01, high=1000, code="invalid_option")


def weigh(options: Options, gram: Matrix, shares: Vector) -> Vector:
    """Shares of the examples, times what each length must shrink by."""
    own = lengths(gram)
    return shares * shrink(own, options.ratio * float(np.median(own)))


def build(options: Options) -> Strategy:
    from fogline_server.training.aggregation.geometric import Geometric

    return Geometric(partial(weigh, options))
