"""Adagrad on the server, over the averaged update (Reddi et al., ICLR 2021)."""

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
    tau: float = 0.001

    def __post_init__(self) -> None:
        number("eta", self.eta, low=1e-06, high=10, code="invalid_option")
        number("tau", self.tau, low=1e-09, high=1, code="invalid_option")


def build(options: Options) -> Strategy:
    from flwr.serverapp.strategy import FedAdagrad

    return FedAdagrad(**EVERY_NODE, eta=options.eta, tau=options.tau)
