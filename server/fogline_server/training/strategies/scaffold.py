"""Local gradients corrected for what tells a device from the others (SCAFFOLD; Karimireddy et al., ICML 2020).

The control variates of option II are computed and kept here, so devices stay stateless: a device gets the difference between
the mean of all and its own, adds it to its gradients, takes plain steps, and says how many. All devices count alike.
The checkpoint grows with the number of devices: each has an array for each of the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fogline_shared.checks import number

if TYPE_CHECKING:
    from flwr.serverapp.strategy import Strategy

STATE = ("controls",)


@dataclass(frozen=True, kw_only=True)
class Options:
    learning_rate: float = 0.05

    def __post_init__(self) -> None:
        number("learning_rate", self.learning_rate, low=1e-7, high=10, code="invalid_option")


def plan(options: Options) -> Mapping[str, float | str]:
    """Controls are gradients read out of an update, so steps must be in proportion to gradients."""
    return {"optimiser": "sgd", "learning_rate": options.learning_rate}


def build(_options: Options) -> Strategy:
    from fogline_server.training.aggregation.blocks import blocks
    from fogline_server.training.aggregation.own_strategy import OwnStrategy
    from fogline_shared import flower

    class Scaffold(OwnStrategy):
        further_metrics = ("steps",)
        # By "node/array".
        controls: dict[str, Any] | None = None

        def configure_train(self, server_round: int, arrays: Any, config: Any, grid: Any) -> Any:
            messages = list(super().configure_train(server_round, arrays, config, grid))
            self.learning_rate = config["learning_rate"]
            known = self.controls or {}
            nodes = {key.partition("/")[0] for key in known}
            self.common = {
                name: sum((known[f"{node}/{name}"] for node in sorted(nodes)), np.zeros_like(self.reference[name]))
                / np.float32(max(1, len(nodes)))
                for name in self.learned
            }
            for message in messages:
                correction = {
                    name: common - known.get(f"{message.metadata.dst_node_id}/{name}", np.float32(0))
                    for name, common in self.common.items()
                }
                message.content = flower.RecordDict({**message.content, "correction": flower.to_record(correction)})
            return messages

        def aggregate_train(self, server_round: int, replies: Iterable[Any]) -> tuple[Any, Any]:
            del server_round
            replies = list(replies)
            contents = self.contents(replies)
            if not contents:
                return None, None
            records = self.records(contents)
            moved = np.array([self.learning_rate * content.metric_records["metrics"]["steps"] for content in contents])
            controls, new = dict(self.controls or {}), {}
            for name, old in self.reference.items():
                combined = np.empty(old.size, old.dtype)
                for part, values in blocks(records, name):
                    combined[part] = np.mean(values, axis=0, dtype=np.float64)
                new[name] = combined.reshape(old.shape)
                for reply, record, far in zip(replies, records, moved, strict=True):
                    if name in self.common and far > 0:
                        key = f"{reply.metadata.src_node_id}/{name}"
                        gradient = (old - record[name].numpy()) / np.float32(far)
                        controls[key] = controls.get(key, np.float32(0)) - self.common[name] + gradient
            self.controls = controls
            return flower.to_record(new), self.metrics(contents)

    return Scaffold()
