"""Scikit-learn's handwritten digits and a perceptron so small that a whole federated run takes a second.

All of the training examples are one pool, which a simulation splits over its devices. Held back: those that the report is
about, and five of each digit that a server may train on itself: too few to learn much from alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fogline_recipes.classifier import Classifier
from fogline_shared.recipe import Dataset, Options, TrainPlan

if TYPE_CHECKING:
    from torch.nn import Module

UNSEEN, ROOT = 500, 50


@cache
def parts() -> Mapping[str, Dataset]:
    """``fleet``, ``unseen`` and ``root``, with labels as frequent in each."""
    digits = load_digits()
    x, y = digits.images[:, None].astype(np.float32), digits.target.astype(np.int64)
    rest, unseen = train_test_split(np.arange(len(y)), test_size=UNSEEN, stratify=y, random_state=0)
    fleet, root = train_test_split(rest, test_size=ROOT, stratify=y[rest], random_state=0)
    rows = {"fleet": fleet, "unseen": unseen, "root": root}
    return {name: Dataset(x=x[chosen], y=y[chosen]) for name, chosen in rows.items()}


class Digits(Classifier):
    """8x8 grey values to ten classes."""

    name = "digits"
    weight_decay = 0.0
    classes = tuple("0123456789")
    input_shape = (1, 8, 8)
    plans: ClassVar[Mapping[str, TrainPlan]] = {
        size: TrainPlan(epochs=1, batch_size=20, learning_rate=0.4, optimiser="sgd") for size in ("teacher", "student")
    }

    def build(self, size: str) -> Module:
        from torch import nn

        width = {"teacher": 64, "student": 32}[size]
        return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, len(self.classes)))

    def fleet(self) -> Sequence[Options]:
        return [{}]

    def device_data(self, options: Options) -> Dataset:
        del options
        return parts()["fleet"]

    def unseen(self) -> Dataset:
        return parts()["unseen"]

    def root(self) -> Dataset:
        return parts()["root"]
