"""FedBuff's step, by the paper's formula; updates of earlier versions told as updates of the present one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from flwr.app import MetricRecord

from fogline_server.training.asynchronous.staleness import may_step, rebase
from fogline_server.training.strategies import base
from fogline_shared import flower
from fogline_shared.flower import Address, ArrayRecord, ConfigRecord, Message, RecordDict

PRESENT = {"w": np.array([1.0, 2.0], np.float32), "var": np.array([1.0], np.float32)}


class Nodes:
    """A grid as far as a strategy looks."""

    def __init__(self, staleness: dict[int, int]) -> None:
        self.staleness = staleness

    def get_node_ids(self) -> list[int]:
        return []


def answer(node: int, w: list[float], var: float) -> Message:
    arrays = {"w": np.array(w, np.float32), "var": np.array([var], np.float32)}
    metrics = MetricRecord({"num-examples": 10 * node, "loss": 1.0})
    address = Address(message_id="m", node_id=node, group_id="1", message_type="train")
    return flower.reply(RecordDict({"arrays": flower.to_record(arrays), "metrics": metrics}), address)


def step(replies: list[Message], staleness: dict[int, int], **options: float) -> dict[str, np.ndarray]:
    strategy = base.load("fedbuff", options).build(None)
    strategy.running = ["var"]
    assert strategy.configure_train(5, flower.to_record(PRESENT), ConfigRecord({}), Nodes(staleness)) == []
    arrays, _ = strategy.aggregate_train(5, replies)
    assert isinstance(arrays, ArrayRecord)
    return flower.arrays_of(arrays)


def test_an_update_counts_by_its_staleness_and_not_by_its_examples() -> None:
    new = step([answer(1, [2.0, 2.0], 2.0), answer(2, [1.0, 6.0], 1.0)], {1: 0, 2: 3}, server_learning_rate=0.5)
    np.testing.assert_allclose(new["w"], [1.0 + 0.5 * 1.0 / 2, 2.0 + 0.5 * 4.0 / 2 / math.sqrt(4)], rtol=1e-6)
    np.testing.assert_allclose(new["var"], [1.5], err_msg="statistics do without the server's learning rate")
    fresh = step([answer(1, [2.0, 2.0], 2.0), answer(2, [1.0, 6.0], 1.0)], {})
    np.testing.assert_allclose(fresh["w"], [1.5, 4.0], rtol=1e-6)


def test_an_update_of_an_earlier_version_is_told_as_one_of_the_present() -> None:
    sent = {"w": np.array([0.0, 0.0], np.float32), "var": np.array([9.0], np.float32)}
    told = rebase(answer(1, [0.5, -1.0], 4.0), sent, PRESENT, arrays="arrays", running=["var"])
    arrays = told.content.array_records["arrays"]
    np.testing.assert_allclose(arrays["w"].numpy(), [1.5, 1.0])
    np.testing.assert_allclose(arrays["var"].numpy(), [4.0], err_msg="a variance is no difference")


def test_what_does_not_fit_the_model_is_left_for_admission() -> None:
    wrong = answer(1, [0.5, -1.0, 3.0], 4.0)
    told = rebase(wrong, PRESENT, PRESENT, arrays="arrays", running=["var"])
    assert told.content.array_records["arrays"]["w"].shape == (3,)
    failed = flower.reply(
        flower.failure(flower.DEVICE_FAILED, "no", "no"),
        Address(message_id="m", node_id=1, group_id="1", message_type="train"),
    )
    assert rebase(failed, PRESENT, PRESENT, arrays="arrays", running=[]).has_error()


@pytest.mark.parametrize(
    ("usable", "pending", "overdue", "steps"),
    [
        (4, 9, False, True),
        (3, 1, False, False),
        (3, 0, False, True),
        (1, 0, True, False),
        (2, 9, True, True),
        (2, 9, False, False),
        (2, 2, True, True),
        (1, 9, True, False),
    ],
)
def test_a_step_waits_for_its_buffer_its_deadline_or_the_last_device(
    *, usable: int, pending: int, overdue: bool, steps: bool
) -> None:
    told = {"usable": usable, "pending": pending, "overdue": overdue}
    assert may_step(**told, size=4, quorum=0.5, needed=2) == steps
