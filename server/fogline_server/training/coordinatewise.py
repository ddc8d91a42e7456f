"""Rules that look at each coordinate by itself: medians and trimmed means, in blocks.

They give what Flower's strategies of the same names give, bit by bit, without holding every device's arrays at once.
Importing this module loads flwr: a rule's file does so inside ``build``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray

from fogline_server.training.blocks import blocks
from fogline_server.training.strategies.base import EVERY_NODE
from fogline_shared import flower

# From the devices' values (n, m) to one value each (m,).
Combine = Callable[[NDArray[Any]], NDArray[Any]]


class Coordinatewise(FedAvg):
    """A Flower strategy whose parameters are ``combine`` of the devices' parameters, which it may sort in place."""

    def __init__(self, combine: Combine) -> None:
        super().__init__(**EVERY_NODE)
        self._combine = combine

    def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
        """The combined parameters; raises what Flower raises for replies that do not fit together."""
        del server_round
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        contents = [message.content for message in valid]
        records = [content.array_records[self.arrayrecord_key] for content in contents]
        new = {}
        for name, array in records[0].items():
            combined = np.empty(array.shape, array.dtype)
            for part, values in blocks(records, name):
                combined.reshape(-1)[part] = self._combine(np.stack(values))
            new[name] = combined
        return flower.to_record(new), self.train_metrics_aggr_fn(contents, self.weighted_by_key)
