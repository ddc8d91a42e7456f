"""A fairer mean: devices with a larger loss weigh more (q-FedAvg; Li et al., ICLR 2020).

``q`` 0 is the plain mean of the devices, not weighted by examples. ``client_learning_rate`` estimates the inverse of the loss's
Lipschitz constant.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fogline_server.training.aggregation.gram import Vector
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

# Added to every loss, as the paper's code does: a loss of 0 has no negative power.
_SMALLEST_LOSS = 1e-10


@dataclass(frozen=True, kw_only=True)
class Options:
    q: float = 0.1
    client_learning_rate: float = 0.1

    def __post_init__(self) -> None:
        number("q", self.q, low=0, high=10, code="invalid_option")
        number("client_learning_rate", self.client_learning_rate, low=1e-6, high=10, code="invalid_option")


def weigh(options: Options, squares: Vector, losses: Vector) -> Vector:
    """How much of each update counts, from the updates' squared lengths and the devices' losses."""
    lipschitz = 1.0 / options.client_learning_rate
    kept = losses + _SMALLEST_LOSS
    bends = options.q * kept ** (options.q - 1) * lipschitz**2 * squares + lipschitz * kept**options.q
    coefficients: Vector = lipschitz * kept**options.q / bends.sum()
    return coefficients


def build(options: Options) -> Strategy:
    from fogline_server.training.aggregation.geometric import Updates
    from fogline_server.training.aggregation.own_strategy import OwnStrategy
    from fogline_shared import flower

    class QFedAvg(OwnStrategy):
        def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
            del server_round
            contents = self.contents(replies)
            if not contents:
                return None, None
            updates = Updates(self.records(contents), self.reference, anchor=None)
            losses = np.array([content.metric_records["metrics"]["loss"] for content in contents], np.float64)
            coefficients = weigh(options, updates.squares(), losses)
            new = {name: old + updates.combine(name, coefficients) for name, old in self.reference.items()}
            return flower.to_record(new), self.metrics(contents)

    return QFedAvg()
