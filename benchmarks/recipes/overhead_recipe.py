"""A recipe whose training is one addition: what is left of a round is overhead. ``teacher`` is 20 MB, ``student`` 0.1, in one tensor or in 100.

The addition is another for each device and round. Bytes that were the same would be sent once and found there ever after,
by our blobs and by Flower's objects alike; a model that learns is never the same.

``fogline_bench-1.0.dist-info`` beside this file carries its entry point, as an installed package's would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from fogline_shared.recipe import (
    ChannelSums,
    Dataset,
    Evaluation,
    Options,
    Recipe,
    Standardisation,
    TrainPlan,
    TrainResult,
)

if TYPE_CHECKING:
    from torch.nn import Module

# Floats of each size, and in how many tensors.
SHAPES = {
    "student": (25_000, 1),
    "student_in_100": (25_000, 100),
    "teacher": (5_000_000, 1),
    "teacher_in_100": (5_000_000, 100),
}


class Overhead(Recipe):
    """One example, one weight vector."""

    name = "overhead"
    classes = ("only", "other")
    input_shape = (1, 4)
    sizes = tuple(SHAPES)
    plans: ClassVar[Mapping[str, TrainPlan]] = {}

    def model(self, size: str, *, seed: int) -> Module:
        import torch

        class Weights(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                floats, tensors = SHAPES[size]
                self.w = torch.nn.ParameterList(torch.zeros(floats // tensors) for _ in range(tensors))

        del seed
        return Weights()

    def device_data(self, options: Options) -> Dataset:
        del options
        return Dataset(x=np.ones((1, 1, 4), dtype=np.float32), y=np.zeros(1, dtype=np.int64))

    def channel_sums(self, data: Dataset) -> ChannelSums:
        x = data.x.astype(np.float64)
        return ChannelSums(count=float(x.size), total=x.sum((0, 2)), squares=(x**2).sum((0, 2)))

    def train(
        self,
        model: Module,
        data: Dataset,
        standardisation: Standardisation,
        plan: TrainPlan,
        *,
        teacher: Module | None = None,
    ) -> TrainResult:
        del standardisation, teacher
        for weights in model.parameters():
            weights.data += 1e-3 * (1.0 + plan.seed % 997 / 997)
        return TrainResult(examples=len(data), loss=0.0)

    def evaluate(self, model: Module, data: Dataset, standardisation: Standardisation) -> Evaluation:
        raise NotImplementedError("a benchmark of rounds evaluates nothing")
