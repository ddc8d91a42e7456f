"""Buffered asynchronous aggregation (FedBuff; Nguyen et al., AISTATS 2022, arXiv:2106.06639).

The server takes a step when ``buffer_size`` updates have come, whatever versions of the model they began from. An update that
began τ steps ago counts 1/√(1 + τ); beyond ``max_staleness`` it does not count. All devices count alike.
Running statistics go towards the devices' own by the same weights, without the server's learning rate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

ASYNCHRONOUS = True


@dataclass(frozen=True, kw_only=True)
class Options:
    buffer_size: int = 10
    server_learning_rate: float = 1.0
    max_staleness: int = 10

    def __post_init__(self) -> None:
        number("buffer_size", self.buffer_size, low=1, high=100_000, code="invalid_option", whole=True)
        number("server_learning_rate", self.server_learning_rate, low=1e-6, high=10, code="invalid_option")
        number("max_staleness", self.max_staleness, low=0, high=100_000, code="invalid_option", whole=True)


def build(options: Options) -> Strategy:
    from fogline_server.training.aggregation.blocks import blocks
    from fogline_server.training.aggregation.own_strategy import OwnStrategy
    from fogline_shared import flower

    class FedBuff(OwnStrategy):
        # Steps since its version was sent, by node; 0 where the grid does not say.
        staleness: Mapping[int, int] = {}

        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
            self.staleness = getattr(grid, "staleness", {})
            if not list(grid.get_node_ids()):
                # All are at work; Flower would wait for somebody to ask.
                self.reference = flower.arrays_of(arrays)
                return []
            return super().configure_train(server_round, arrays, config, grid)

        def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
            del server_round
            replies = list(replies)
            contents = self.contents(replies)
            if not contents:
                return None, None
            late = np.array([self.staleness.get(reply.metadata.src_node_id, 0) for reply in replies], np.float64)
            weights = 1.0 / np.sqrt(1.0 + late) / len(replies)
            records, new = self.records(contents), {}
            for name, old in self.reference.items():
                rate = 1.0 if name in self.running else options.server_learning_rate
                flat, stepped = old.reshape(-1), np.empty(old.size, old.dtype)
                for part, values in blocks(records, name):
                    before = flat[part].astype(np.float64)
                    moved = sum(w * (after - before) for w, after in zip(weights, values, strict=True))
                    stepped[part] = before + rate * moved
                new[name] = stepped.reshape(old.shape)
            return flower.to_record(new), self.metrics(contents)

    return FedBuff()
