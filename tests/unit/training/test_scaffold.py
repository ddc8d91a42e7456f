"""SCAFFOLD over stateless devices against the paper's algorithm written out, and the correction on a device."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from tiny_recipe import Tiny

from fogline_recipes import device, parameters
from fogline_recipes.device import Corrected
from fogline_server.training.in_process import InProcessGrid
from fogline_server.training.strategies import base
from fogline_shared import flower
from fogline_shared.errors import Corrupt
from fogline_shared.flower import Message, MetricRecord

RATE, STEPS = 0.1, {1: 3, 2: 5}
# Device i has the loss |x - target|² / 2, so its gradient is x - target.
TARGETS = {1: np.array([4.0, 0.0], np.float32), 2: np.array([0.0, -2.0], np.float32)}


def app_of(node: int):
    def answer(message: Message, _context: object) -> Message:
        x = flower.arrays_of(message.content["arrays"])["w"]
        correction = flower.arrays_of(message.content["correction"])["w"]
        for _ in range(STEPS[node]):
            x = x - np.float32(RATE) * (x - TARGETS[node] + correction)
        metrics = MetricRecord({"num-examples": 1 + 99 * (node == 1), "loss": 0.0, "steps": STEPS[node]})
        return Message(RecordDict({"arrays": flower.to_record({"w": x}), "metrics": metrics}), reply_to=message)

    return answer


def of_the_paper(rounds: int) -> np.ndarray:
    x, common = np.zeros(2), np.zeros(2)
    own = {node: np.zeros(2) for node in TARGETS}
    for _ in range(rounds):
        ends, new = [], {}
        for node, target in TARGETS.items():
            y = x
            for _ in range(STEPS[node]):
                y = y - RATE * (y - target - own[node] + common)
            new[node] = own[node] - common + (x - y) / (STEPS[node] * RATE)
            ends.append(y)
        common = common + np.mean([new[node] - own[node] for node in TARGETS], axis=0)
        x, own = np.mean(ends, axis=0), new
    return x


def test_rounds_are_the_papers() -> None:
    grid = InProcessGrid({node: (app_of(node), {}) for node in TARGETS})
    strategy = base.load("scaffold", {}).build(Tiny())
    arrays = flower.to_record({"w": np.zeros(2, np.float32)})
    results = []
    for number in range(1, 31):
        messages = strategy.configure_train(number, arrays, ConfigRecord({"learning_rate": RATE}), grid)
        arrays, _ = strategy.aggregate_train(number, grid.send_and_receive(messages))
        results.append(flower.arrays_of(arrays)["w"])
    for rounds in (1, 2, 3, 10):
        assert results[rounds - 1] == pytest.approx(of_the_paper(rounds), abs=1e-5)
    optimum = np.mean(list(TARGETS.values()), axis=0)
    assert results[-1] == pytest.approx(optimum, abs=0.05)
    assert results[0] != pytest.approx(optimum * (1 - 0.9 ** np.mean(list(STEPS.values()))), abs=0.05), "steps differ"


def asked(correction: ArrayRecord) -> RecordDict:
    recipe = Tiny()
    arrays = flower.to_record(parameters.read(recipe.model("student", seed=0)))
    config = {"size": "student", "mean": [5.0] * 6, "scale": [3.0] * 6, "optimiser": "sgd", "learning_rate": 0.1}
    return RecordDict({"arrays": arrays, "correction": correction, "config": ConfigRecord({**config, "epochs": 2})})


def test_device_takes_plain_steps_along_corrected_gradients() -> None:
    """A correction of ones moves every parameter by its share more, to first order; zeros change nothing."""
    recipe = Tiny()
    held = device.Held(data=recipe.device_data({"seed": "3"}), fingerprint=3)
    names = [name for name, _ in recipe.model("student", seed=0).named_parameters()]
    shapes = {name: array.shape for name, array in parameters.read(recipe.model("student", seed=0)).items()}
    moved = {}
    for size in (0.0, 1e-3):
        correction = {name: np.full(shapes[name], size, np.float32) for name in names}
        trained = device.train(recipe, held, asked(flower.to_record(correction)))
        assert trained.metrics["steps"] == 4, "64 examples in batches of 32, twice"
        moved[size] = parameters.read(trained.model)
    for name in names:
        pulled = (moved[1e-3][name] - moved[0.0][name]).mean()
        assert pulled == pytest.approx(-4 * 0.1 * 1e-3, rel=0.5), name


@pytest.mark.parametrize("wrong", ["foreign", "missing", "shape"])
def test_correction_that_does_not_fit_is_an_error(wrong: str) -> None:
    model = Tiny().model("student", seed=0)
    correction = {name: np.zeros(tuple(p.shape), np.float32) for name, p in model.named_parameters()}
    name = next(iter(correction))
    if wrong == "foreign":
        correction["other"] = correction[name]
    elif wrong == "missing":
        del correction[name]
    else:
        correction[name] = correction[name][:1]
    with pytest.raises(Corrupt) as caught:
        Corrected(model, correction)
    assert caught.value.code == "params_mismatch"
