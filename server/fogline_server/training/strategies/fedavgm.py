"""FedAvg with momentum on the server (Hsu, Qi, Brown, 2019, arXiv:1909.06335)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fogline_server.training.strategies.base import EVERY_NODE
from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

STATE = ("momentum",)
ADAPTIVE = True


@dataclass(frozen=True, kw_only=True)
class Options:
    server_learning_rate: float = 1.0
    server_momentum: float = 0.5

    def __post_init__(self) -> None:
        number("server_learning_rate", self.server_learning_rate, low=1e-6, high=10, code="invalid_option")
        number("server_momentum", self.server_momentum, low=0, high=0.9999, code="invalid_option")


def build(options: Options) -> Strategy:
    from flwr.serverapp.strategy import FedAvgM

    class Resumable(FedAvgM):
        """Steps from the parameters of the round, whoever committed them, and has its momentum by name."""

        momentum: dict[str, Any] | None = None

        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
            self.current_arrays = arrays
            return super().configure_train(server_round, arrays, config, grid)

        def aggregate_train(self, server_round: int, replies: Any) -> Any:
            names = list(self.current_arrays or ())
            self.momentum_vector = None if self.momentum is None else [self.momentum[name] for name in names]
            result = super().aggregate_train(server_round, replies)
            if self.momentum_vector is not None:
                self.momentum = dict(zip(names, self.momentum_vector, strict=True))
            return result

    return Resumable(
        **EVERY_NODE, server_learning_rate=options.server_learning_rate, server_momentum=options.server_momentum
    )
