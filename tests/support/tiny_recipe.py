"""A recipe small enough for tests: synthetic 6x32 signals, four classes told apart by frequency.

It is an installed package as far as Python is concerned: ``fogline_tiny-1.0.dist-info`` beside this file carries its
entry point, so ``load_recipe("tiny")`` finds it wherever this folder is on the path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fogline_recipes.optimisers import optimiser_of
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import (
    ChannelSums,
    Dataset,
    Evaluation,
    FloatArray,
    Options,
    Recipe,
    Standardisation,
    TrainPlan,
    TrainResult,
)

if TYPE_CHECKING:
    import torch

CHANNELS, LENGTH, CLASSES = 6, 32, 4


def signals(seed: int, n: int) -> Dataset:
    """``n`` examples: a sine of 1 … 4 periods per class, phase and channel gains by chance, offset 5 and scale 3."""
    rng = np.random.default_rng(seed)
    y = np.arange(n, dtype=np.int64) % CLASSES
    t = np.arange(LENGTH) / LENGTH
    phase = rng.uniform(0, 2 * np.pi, (n, CHANNELS, 1))
    wave = np.sin(2 * np.pi * (y[:, None, None] + 1) * t + phase) * rng.uniform(0.7, 1.3, (n, CHANNELS, 1))
    x = 5.0 + 3.0 * (wave + rng.normal(0, 0.3, wave.shape))
    return Dataset(x=x.astype(np.float32), y=y)


class Tiny(Recipe):
    """A student of some hundred parameters that learns its task in a second."""

    name = "tiny"
    classes = ("one", "two", "three", "four")
    input_shape = (CHANNELS, LENGTH)
    personal = True
    plans: ClassVar[Mapping[str, TrainPlan]] = {
        "teacher": TrainPlan(epochs=2, learning_rate=1e-2),
        "student": TrainPlan(epochs=2, learning_rate=1e-2),
    }
    rounds: ClassVar[Mapping[str, int]] = {"teacher": 2, "student": 2}
    device_options: ClassVar[Mapping[str, str]] = {"seed": "a whole number that makes this device's signals"}

    def model(self, size: str, *, seed: int) -> torch.nn.Module:
        import torch
        from torch import nn

        width = {"teacher": 16, "student": 8}[size]
        torch.default_generator.manual_seed(seed)  # the CPU's alone, see fogline_recipes.classifier
        return nn.Sequential(
            nn.Conv1d(CHANNELS, width, 9, padding=4, bias=False),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(1),
            nn.Flatten(),
            nn.Linear(width, CLASSES),
        )

    def device_data(self, options: Options) -> Dataset:
        seed = options.get("seed", "")
        if not seed.isdecimal():
            raise InvalidInput("invalid_option", f"option 'seed' is a whole number, not {seed!r}")
        return signals(int(seed), 64)

    def fleet(self) -> Sequence[Options]:
        return [{"seed": str(seed)} for seed in range(10)]

    def channel_sums(self, data: Dataset) -> ChannelSums:
        x = data.x.astype(np.float64)
        return ChannelSums(count=float(x[:, 0].size), total=x.sum((0, 2)), squares=(x**2).sum((0, 2)))

    def train(
        self,
        model: torch.nn.Module,
        data: Dataset,
        standardisation: Standardisation,
        plan: TrainPlan,
        *,
        teacher: torch.nn.Module | None = None,
    ) -> TrainResult:
        import torch
        from torch.nn import functional

        torch.set_num_threads(1)
        x, y = _standardised(data.x, standardisation), torch.from_numpy(data.y)
        generator = torch.Generator().manual_seed(plan.seed)
        optimiser = optimiser_of(plan, model.parameters(), weight_decay=0.0 if plan.optimiser == "sgd" else 0.01)
        model.train()
        losses: list[float] = []
        for _ in range(plan.epochs):
            losses = []
            for batch in torch.randperm(len(y), generator=generator).split(plan.batch_size):
                logits = model(x[batch])
                loss = functional.cross_entropy(logits, y[batch])
                if teacher is not None:
                    with torch.no_grad():
                        soft = functional.softmax(teacher(x[batch]), 1)
                    loss = (
                        loss + functional.kl_div(functional.log_softmax(logits, 1), soft, reduction="batchmean")
                    ) / 2
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
        return TrainResult(examples=len(y), loss=float(np.mean(losses)))

    def evaluate(self, model: torch.nn.Module, data: Dataset, standardisation: Standardisation) -> Evaluation:
        import torch
        from torch.nn import functional

        model.eval()
        with torch.no_grad():
            logits = model(_standardised(data.x, standardisation))
        y = torch.from_numpy(data.y)
        confusion = np.zeros((CLASSES, CLASSES), dtype=int)
        np.add.at(confusion, (data.y, logits.argmax(1).numpy()), 1)
        return Evaluation(
            examples=len(y),
            accuracy=float((logits.argmax(1) == y).float().mean()),
            loss=functional.cross_entropy(logits, y).item(),
            confusion=confusion.tolist(),
        )

    def holdout(self) -> Dataset:
        return signals(10_001, 200)

    def transfer(self) -> FloatArray:
        return signals(10_002, 100).x

    def root(self) -> Dataset:
        return signals(10_004, 64)

    def unseen(self) -> Dataset:
        return signals(10_003, 200)


def _standardised(x: FloatArray, standardisation: Standardisation) -> torch.Tensor:
    import torch

    mean = np.asarray(standardisation.mean, np.float32)[:, None]
    scale = np.asarray(standardisation.scale, np.float32)[:, None]
    return torch.from_numpy((x - mean) / scale)
