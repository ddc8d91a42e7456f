"""Our rules in blocks against Flower's own strategies of the same names, on the same replies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict
from flwr.serverapp import strategy as flowers
from tiny_recipe import Tiny

from fogline_server.training.aggregation.blocks import BLOCK
from fogline_server.training.strategies import base
from fogline_server.training.strategies.base import EVERY_NODE
from fogline_shared import flower
from fogline_shared.flower import Address

SHAPES = {"long": (3, BLOCK // 2 + 11), "short": (7,), "scalar": ()}
DEVICES = 9
SAME_BITS = {"rtol": 0.0, "atol": 0.0}
# Flower's distances are of parameters in float32, ours of updates in float64: the same choice, the last bit may differ.
LAST_BIT = {"rtol": 1e-6, "atol": 1e-6}


def replies(reference: dict[str, np.ndarray]) -> list[Message]:
    """Devices that move alike, but for one that moves far and one that lies."""
    rng = np.random.default_rng(7)
    messages = []
    for node in range(DEVICES):
        scale = {3: 10.0, 5: -25.0}.get(node, 1.0)
        arrays = {
            name: np.asarray(old + scale * (0.5 + 0.1 * rng.normal(size=old.shape)), np.float32)
            for name, old in reference.items()
        }
        content = RecordDict(
            {
                "arrays": flower.to_record(arrays),
                "metrics": MetricRecord({"num-examples": 10 + node, "loss": 0.1 + node}),
            }
        )
        address = Address(message_id=str(node), node_id=node, group_id="1", message_type="train")
        messages.append(flower.reply(content, address))
    return messages


@pytest.mark.parametrize(
    ("name", "options", "flowers_own", "tolerance"),
    [
        ("fedavg", {}, flowers.FedAvg(**EVERY_NODE), SAME_BITS),
        ("fedprox", {"proximal_mu": 0.1}, flowers.FedProx(**EVERY_NODE, proximal_mu=0.1), SAME_BITS),
        ("fedmedian", {}, flowers.FedMedian(**EVERY_NODE), SAME_BITS),
        ("fedtrimmedavg", {"beta": 0.25}, flowers.FedTrimmedAvg(**EVERY_NODE, beta=0.25), SAME_BITS),
        ("krum", {"num_malicious_nodes": 2}, flowers.Krum(**EVERY_NODE, num_malicious_nodes=2), LAST_BIT),
        (
            "multikrum",
            {"num_malicious_nodes": 2, "num_nodes_to_select": 5},
            flowers.MultiKrum(**EVERY_NODE, num_malicious_nodes=2, num_nodes_to_select=5),
            LAST_BIT,
        ),
        (
            "bulyan",
            {"num_malicious_nodes": 1},
            flowers.Bulyan(**EVERY_NODE, num_malicious_nodes=1),
            LAST_BIT,
        ),
        (
            "qfedavg",
            {"q": 2.0, "client_learning_rate": 0.05},
            flowers.QFedAvg(**EVERY_NODE, q=2.0, client_learning_rate=0.05, train_loss_key="loss"),
            LAST_BIT,
        ),
    ],
)
def test_rule_gives_what_flowers_gives(
    name: str, options: dict[str, Any], flowers_own: flowers.Strategy, tolerance: dict[str, float]
) -> None:
    rng = np.random.default_rng(2)
    reference = {key: np.asarray(rng.normal(size=shape), np.float32) for key, shape in SHAPES.items()}
    ours = base.load(name, options).build(Tiny())
    results = []
    for strategy in (ours, flowers_own):
        # What configure_train keeps, in our own and in Flower's.
        strategy.reference, strategy.current_arrays = reference, flower.to_record(dict(reference))
        arrays, metrics = strategy.aggregate_train(1, replies(reference))
        assert metrics is not None
        results.append(flower.arrays_of(arrays))
    for key, old in reference.items():
        np.testing.assert_allclose(results[0][key], results[1][key], **tolerance)
        assert results[0][key].shape == old.shape
        assert results[0][key].dtype == np.float32
        assert np.abs(results[0][key] - old).mean() < 1.5, "neither the loud one nor the liar decided"
