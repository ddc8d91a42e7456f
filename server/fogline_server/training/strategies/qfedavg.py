"""A fairer mean: devices with a larger loss weigh more (q-FedAvg; Li et al., ICLR 2020).

``q`` 0 is the plain mean of the devices, not weighted by examples. ``client_learning_rate`` estimates the inverse of the loss's
Lipschitz constant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fogline_server.training.strategies.base import EVERY_NODE
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    q: float = 0.1
    client_learning_rate: float = 0.1

    def __post_init__(self) -> None:
        number("q", self.q, low=0, high=10, code="invalid_option")
        number("client_learning_rate", self.client_learning_rate, low=1e-6, high=10, code="invalid_option")


def build(options: Options) -> Strategy:
    from flwr.serverapp.strategy import QFedAvg

    return QFedAvg(**EVERY_NODE, q=options.q, client_learning_rate=options.client_learning_rate, train_loss_key="loss")
