"""Adam on the server, over the averaged update (Reddi et al., ICLR 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fogline_server.training.strategies.base import EVERY_NODE
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

STATE = ("m_t", "v_t")
ADAPTIVE = True


@dataclass(frozen=True, kw_only=True)
class Options:
    eta: float = 0.03
    beta_1: float = 0.9
    beta_2: float = 0.99
    tau: float = 0.001

    def __post_init__(self) -> None:
        number("eta", self.eta, low=1e-06, high=10, code="invalid_option")
        number("beta_1", self.beta_1, low=0, high=0.9999, code="invalid_option")
        number("beta_2", self.beta_2, low=0, high=0.99999, code="invalid_option")
        number("tau", self.tau, low=1e-09, high=1, code="invalid_option")


def build(options: Options) -> Strategy:
    from flwr.serverapp.strategy import FedAdam

    return FedAdam(**EVERY_NODE, eta=options.eta, beta_1=options.beta_1, beta_2=options.beta_2, tau=options.tau)
