"""FedAvg whose devices are held near the global model by a proximal term (Li et al., MLSys 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fogline_server.training.strategies.base import EVERY_NODE
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Options:
    proximal_mu: float = 0.01

    def __post_init__(self) -> None:
        number("proximal_mu", self.proximal_mu, low=0, high=100, code="invalid_option")


def build(options: Options) -> Strategy:
    from flwr.serverapp.strategy import FedProx

    from fogline_server.training.aggregation.flat_mean import FlatMean

    class Proximal(FedProx, FlatMean):
        """FedProx, with FedAvg's mean as we add it up."""

    return Proximal(**EVERY_NODE, proximal_mu=options.proximal_mu)


def plan(options: Options) -> Mapping[str, float]:
    """The devices' loss has the term, so their plan carries its weight."""
    return {"proximal_mu": options.proximal_mu}
