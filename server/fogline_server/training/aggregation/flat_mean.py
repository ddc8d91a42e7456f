"""The mean of updates, weighted by examples: Flower's FedAvg, bit by bit, over a whole model at a time.

Flower adds up array by array, and keeps its result as .npy bytes. A model's arrays lie one after the other in a reply's blob,
so one pass over a long vector does for a hundred tensors what it does for one. Importing this module loads flwr: a rule's file
does so inside ``build``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fogline_server.training.aggregation.blocks import BLOCK
from fogline_shared import flower


class FlatMean(FedAvg):
    """A FedAvg that is faster. Strategies of Flower's that build on FedAvg are built on this one by inheriting from both."""

    def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
        """As FedAvg, from which it also takes what lies in memory in another way."""
        replies = list(replies)
        mean = self._mean([message.content for message in replies if not message.has_error()])
        if mean is None:
            return super().aggregate_train(server_round, replies)
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        return mean, self.train_metrics_aggr_fn([message.content for message in valid], self.weighted_by_key)

    def _mean(self, contents: Sequence[RecordDict]) -> ArrayRecord | None:
        samples, records = [], []
        for content in contents:
            metrics: Mapping[str, Any] = next(iter(content.metric_records.values()), {})
            count, record = metrics.get(self.weighted_by_key), content.array_records.get(self.arrayrecord_key)
            if not isinstance(count, int | float) or record is None:
                return None
            samples.append(count)
            records.append(record)
        return mean_of(records, samples) if records else None


def mean_of(records: Sequence[ArrayRecord], samples: Sequence[float]) -> ArrayRecord | None:
    """Their mean, weighted by ``samples``; None where one of them is no vector of floats, or not of the same arrays in the same order."""
    total = sum(samples)
    like = _shapes(records[0])
    new = None
    for record, count in zip(records, samples, strict=True):
        values = flower.flat(record) if _shapes(record) == like else None
        if values is None or values.dtype.kind != "f" or (new is not None and values.dtype != new.dtype):
            return None
        # In Flower's order of operations: the sum's last bits depend on it.
        share = count / total
        if new is None:
            new = values * share
            space = np.empty(min(BLOCK, new.size), new.dtype)
            continue
        for start in range(0, new.size, BLOCK):
            part = new[start : start + BLOCK]
            part += np.multiply(values[start : start + BLOCK], share, out=space[: part.size])
    return None if new is None else flower.divided(new, records[0])


def _shapes(record: ArrayRecord) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, array.shape) for name, array in record.items()]
