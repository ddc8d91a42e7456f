from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_recipe import CHANNELS, CLASSES, LENGTH, Tiny, signals
from torch import nn

from fogline_recipes import parameters
from fogline_recipes.classifier import Classifier
from fogline_shared.errors import Corrupt
from fogline_shared.recipe import Dataset, Options, TrainPlan

PLAN = TrainPlan(epochs=3, batch_size=16, learning_rate=1e-2, seed=5)


class Waves(Classifier):
    """The tiny task over the base class: only models and data are its own."""

    name = "waves"
    classes = ("one", "two", "three", "four")
    input_shape = (CHANNELS, LENGTH)
    noise = 0.05

    def build(self, size: str) -> nn.Module:
        seed = int(torch.randint(2**31, ()))  # from the generator that the base class has seeded
        return nn.Sequential(Tiny().model(size, seed=seed), nn.Dropout(0.1))

    def device_data(self, options: Options) -> Dataset:
        return signals(int(options["seed"]), 96)


DATA = Waves().device_data({"seed": "1"})
STANDARD = Waves().channel_sums(DATA).standardisation()


def trained(plan: TrainPlan, *, data: Dataset = DATA, teacher: nn.Module | None = None) -> dict[str, np.ndarray]:
    model = Waves().model("student", seed=0)
    Waves().train(model, data, STANDARD, plan, teacher=teacher)
    return parameters.read(model)


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


def test_training_lowers_the_loss_and_learns() -> None:
    model = Waves().model("student", seed=0)
    before = Waves().evaluate(model, DATA, STANDARD)
    result = Waves().train(model, DATA, STANDARD, replace(PLAN, epochs=20))
    after = Waves().evaluate(model, DATA, STANDARD)
    assert after.loss < before.loss
    assert after.accuracy > 0.6, "chance is a quarter"
    assert result.examples == 96
    assert np.sum(after.confusion) == 96
    assert after.accuracy == pytest.approx(np.trace(after.confusion) / 96)


def test_same_seed_trains_to_the_same_bytes_whatever_was_drawn_before() -> None:
    first = trained(PLAN)
    torch.rand(100)
    assert same(first, trained(PLAN))
    assert not same(first, trained(replace(PLAN, seed=6)))


def test_training_leaves_the_processs_random_state_alone() -> None:
    model = Waves().model("student", seed=0)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Waves().train(model, DATA, STANDARD, PLAN)
    assert torch.equal(torch.rand(3), expected)


def test_proximal_term_holds_the_model_near() -> None:
    start = parameters.read(Waves().model("student", seed=0))

    def moved(mu: float) -> float:
        end = trained(replace(PLAN, proximal_mu=mu))
        return sum(float(((end[name] - start[name]) ** 2).sum()) for name in start if "running" not in name)

    assert moved(10.0) < moved(0.0) / 2


def test_sgd_steps_are_in_proportion_to_the_learning_rate_and_to_the_gradient() -> None:
    """One step, without weight decay: SCAFFOLD reads the gradient out of it. AdamW moves everything by the rate."""

    class Plain(Waves):
        weight_decay = 0.0

    def step(optimiser: str, rate: float) -> dict[str, np.ndarray]:
        model = Plain().model("student", seed=0)
        before = parameters.read(model)
        plan = TrainPlan(epochs=1, batch_size=96, learning_rate=rate, seed=5, optimiser=optimiser)
        Plain().train(model, DATA, STANDARD, plan)
        after = parameters.read(model)
        return {name: after[name] - before[name] for name, _ in model.named_parameters()}

    small, large, adam = step("sgd", 1e-3), step("sgd", 1e-1), step("adamw", 1e-3)
    for name in small:
        assert large[name] == pytest.approx(100 * small[name], rel=0.02, abs=2e-5)
        assert np.abs(adam[name]).max() == pytest.approx(1e-3, rel=0.02)
    assert np.ptp([np.abs(update).max() for update in small.values()]) > 1e-5


def test_teacher_pulls_the_student_towards_its_labels() -> None:
    recipe = Waves()
    teacher = recipe.model("teacher", seed=9)
    recipe.train(teacher, DATA, STANDARD, replace(PLAN, epochs=20))
    assert not same(trained(PLAN), trained(PLAN, teacher=teacher))
    wrong = Dataset(x=DATA.x, y=(DATA.y + 1) % CLASSES)
    model = recipe.model("student", seed=0)
    recipe.train(model, wrong, STANDARD, replace(PLAN, epochs=20, distil_weight=1.0), teacher=teacher)
    assert recipe.evaluate(model, DATA, STANDARD).accuracy > 0.5, "only the teacher told it the right labels"


@pytest.mark.parametrize("n", [1, 2, 16, 17, 25, 40])
def test_any_number_of_examples_trains(n: int) -> None:
    few = Dataset(x=DATA.x[:n], y=DATA.y[:n])
    assert all(np.isfinite(array).all() for array in trained(PLAN, data=few).values())


def test_channel_sums_work_for_plain_feature_vectors() -> None:
    vectors = Dataset(x=np.arange(12, dtype=np.float32).reshape(4, 3), y=np.zeros(4, np.int64))
    standard = Waves().channel_sums(vectors).standardisation()
    np.testing.assert_allclose(standard.mean, vectors.x.mean(0))
    np.testing.assert_allclose(standard.scale, vectors.x.std(0), rtol=1e-6)


def test_parameters_survive_the_round_trip_and_foreign_ones_are_refused() -> None:
    one, other = Waves().model("student", seed=1), Waves().model("student", seed=2)
    parameters.write(other, parameters.read(one))
    assert same(parameters.read(one), parameters.read(other))
    arrays = parameters.read(one)
    with pytest.raises(Corrupt, match="params_mismatch"):
        parameters.write(other, dict(list(arrays.items())[1:]))
    name = next(iter(arrays))
    with pytest.raises(Corrupt, match="shape"):
        parameters.write(other, arrays | {name: arrays[name][:1]})
