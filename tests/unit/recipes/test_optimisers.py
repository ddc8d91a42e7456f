"""Our optimisers give the bits of torch's, and do not load its compiler."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tiny_recipe
import torch
from tiny_recipe import CHANNELS, LENGTH, Tiny

from fogline_recipes.optimisers import optimiser_of
from fogline_shared.recipe import TrainPlan

STEPS = 60
TRAINING = """
import sys
from test_classifier import Waves
from tiny_recipe import Tiny, signals
from fogline_shared.recipe import TrainPlan

data = signals(1, 64)
statistics = Tiny().channel_sums(data).standardisation()
for recipe in (Tiny(), Waves()):
    for optimiser in ("adamw", "sgd"):
        plan = TrainPlan(optimiser=optimiser)
        assert recipe.train(recipe.model("student", seed=1), data, statistics, plan).examples == 64
assert "torch" in sys.modules
print("torch._dynamo" in sys.modules)
"""


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
@pytest.mark.parametrize(("name", "theirs"), [("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)])
def test_the_bits_of_torch(name: str, theirs: type[torch.optim.Optimizer], weight_decay: float) -> None:
    plan = TrainPlan(optimiser=name, learning_rate=3e-3)
    ends = []
    for make in (
        lambda parameters: optimiser_of(plan, parameters, weight_decay=weight_decay),
        lambda parameters: theirs(parameters, plan.learning_rate, weight_decay=weight_decay),
    ):
        model = Tiny().model("teacher", seed=1)
        unused = torch.nn.Parameter(torch.ones(2))
        optimiser = make([unused, *model.parameters()])
        generator = torch.Generator().manual_seed(7)
        for number in range(STEPS):
            # One parameter has its first gradient later than the others, and the scale changes.
            model[3].bias.requires_grad_(number > STEPS // 2)
            optimiser.zero_grad()
            x = torch.randn((8, CHANNELS, LENGTH), generator=generator) * 10 ** (number % 5 - 2)
            model(x).square().sum().backward()
            optimiser.step()
        assert torch.equal(unused, torch.ones(2))
        ends.append(model.state_dict())
    ours, expected = ends
    start = Tiny().model("teacher", seed=1).state_dict()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)
    assert not any(torch.equal(start[key], expected[key]) for key in expected)


def test_training_does_not_load_the_compiler() -> None:
    path = ":".join((str(Path(__file__).parent), str(Path(tiny_recipe.__file__).parent)))
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path.split(':')}\n{TRAINING}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "False\n", done.stderr
