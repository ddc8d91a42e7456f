"""What our own Flower strategies share: they know what was sent, and which of it are running statistics.

Importing this module loads flwr: a rule's file does so inside ``build``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fogline_server.training.admission import SAMPLES
from fogline_server.training.strategies.base import EVERY_NODE
from fogline_shared import flower


class OwnStrategy(FedAvg):
    """``reference``: the parameters that a round sent. ``running``: names of running statistics, set by the round's caller.

    ``further_metrics``: whole numbers of a reply that it reads beside the number of examples and the loss; 0 where missing.
    """

    further_metrics: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__(**EVERY_NODE)
        self.reference: Mapping[str, NDArray[Any]] = {}
        self.running: Collection[str] = ()

    def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
        """As FedAvg; the parameters that are sent are what updates are measured from."""
        self.reference = flower.arrays_of(arrays)
        return super().configure_train(server_round, arrays, config, grid)

    @property
    def learned(self) -> list[str]:
        """Names of the arrays that are no running statistics."""
        return [name for name in self.reference if name not in self.running]

    def contents(self, replies: Iterable[Any]) -> list[RecordDict]:
        """What the replies hold; raises what Flower raises for replies that do not fit together."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        return [message.content for message in valid]

    def records(self, contents: Sequence[RecordDict]) -> list[Any]:
        """Their parameters."""
        return [content.array_records[self.arrayrecord_key] for content in contents]

    def shares(self, contents: Sequence[RecordDict]) -> NDArray[np.float64]:
        """Their shares of the examples, (n,), which sum to 1."""
        samples = np.array([content.metric_records["metrics"][SAMPLES] for content in contents], np.float64)
        shares: NDArray[np.float64] = samples / samples.sum()
        return shares

    def metrics(self, contents: Sequence[RecordDict]) -> MetricRecord:
        """Their metrics, averaged as Flower does."""
        return self.train_metrics_aggr_fn(list(contents), self.weighted_by_key)
