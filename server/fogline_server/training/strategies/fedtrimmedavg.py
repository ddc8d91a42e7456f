"""Coordinate-wise mean without the ``beta`` largest and smallest shares (Yin et al., ICML 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fogline_server.training.checks import number
from fogline_server.training.strategies.base import EVERY_NODE

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    beta: float = 0.2

    def __post_init__(self) -> None:
        number("beta", self.beta, low=0.0, high=0.49, code="invalid_option")


def build(options: Options) -> Strategy:
    from flwr.serverapp.strategy import FedTrimmedAvg

    return FedTrimmedAvg(**EVERY_NODE, beta=options.beta)
