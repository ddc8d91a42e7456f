"""Students taught by the ensemble of devices of two sizes (FedDF), against those that no ensemble teaches.

Scikit-learn's digits, twenty devices, labels split by Dirichlet 0.5; every other device is of a class that trains the large
model. The cloud has unlabelled digits of its own. Compared on digits that nobody trained on, same seeds and rounds:

- the control: the small devices' plain average, the large devices having nothing to say;
- student-only federation: all twenty devices train the small model.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from harness import Figure, Options, progress
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fogline_recipes.classifier import Classifier
from fogline_recipes.partition import dirichlet
from fogline_server.training.ensemble.spec import FUSIONS, MEAN, Ensemble
from fogline_shared.recipe import Dataset, TrainPlan

if TYPE_CHECKING:
    from torch.nn import Module

DEVICES, ALPHA, ROUNDS = 20, 0.5, 12
UNSEEN, TRANSFER, HOLDOUT = 500, 400, 200
SEEDS = (0, 1, 2)
CLASSES: Mapping[int, str] = {node: "large" if node % 2 else "small" for node in range(DEVICES)}


@cache
def parts() -> Mapping[str, Dataset]:
    """``fleet``, ``unseen``, ``transfer`` and ``holdout``, with labels as frequent in each."""
    digits = load_digits()
    x, y = digits.images[:, None].astype(np.float32), digits.target.astype(np.int64)
    rest, found = np.arange(len(y)), {}
    for name, count in (("unseen", UNSEEN), ("transfer", TRANSFER), ("holdout", HOLDOUT)):
        rest, found[name] = train_test_split(rest, test_size=count, stratify=y[rest], random_state=0)
    found["fleet"] = rest
    return {name: Dataset(x=x[rows], y=y[rows]) for name, rows in found.items()}


class SizedDigits(Classifier):
    """A small and a large network for 8x8 grey values; ``seed`` splits the fleet's digits."""

    name = "sized_digits"
    classes = tuple("0123456789")
    input_shape = (1, 8, 8)
    plans: ClassVar[Mapping[str, TrainPlan]] = {
        size: TrainPlan(epochs=4, batch_size=8, learning_rate=5e-3) for size in ("teacher", "student")
    }

    def __init__(self, seed: int) -> None:
        fleet = parts()["fleet"]
        self._shards = dirichlet(fleet.y, DEVICES, alpha=ALPHA, seed=seed, smallest=10)

    def build(self, size: str) -> Module:
        from torch import nn

        width = {"teacher": 24, "student": 8}[size]
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(8 * width, len(self.classes)),
        )

    def device_data(self, options: Mapping[str, str]) -> Dataset:
        rows = self._shards[int(options["device"])]
        return Dataset(x=parts()["fleet"].x[rows], y=parts()["fleet"].y[rows])

    def transfer(self) -> Any:
        return parts()["transfer"].x

    def holdout(self) -> Dataset:
        return parts()["holdout"]

    def unseen(self) -> Dataset:
        return parts()["unseen"]


def measure(options: Options) -> list[Figure]:
    """One line a rule of fusion and seed; two figures."""
    import torch

    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    seeds, rounds = (SEEDS[:1], 2) if options.quick else (SEEDS, ROUNDS)
    small = [node for node, its in CLASSES.items() if its == "small"]
    found: dict[str, list[float]] = {}

    def note(name: str, run: Callable[[int], float]) -> None:
        found[name] = [run(seed) for seed in seeds]
        told = ", ".join(f"{accuracy:.1f}" for accuracy in found[name])
        spread = statistics.stdev(found[name]) if len(seeds) > 1 else 0.0
        progress(f"{name}: {statistics.mean(found[name]):.1f} ± {spread:.1f} % ({told})")

    note("control", lambda seed: federated(seed, rounds, small))
    note("student only", lambda seed: federated(seed, rounds, list(CLASSES)))
    for fusion in FUSIONS:
        ensemble = Ensemble(sizes={"large": "teacher"}, fusion=fusion)
        note(fusion, lambda seed, ensemble=ensemble: federated(seed, rounds, list(CLASSES), ensemble))
    return [_figure(found, name, peer) for name, peer in ((MEAN, "control"), (MEAN, "student only"))]


def _figure(found: Mapping[str, list[float]], name: str, peer: str) -> Figure:
    ours = found[name]
    return Figure(
        name=f"student taught by the ensemble ({name}), against {peer}",
        unit="%",
        ours=statistics.mean(ours),
        spread=statistics.stdev(ours) if len(ours) > 1 else 0.0,
        peer=statistics.mean(found[peer]),
        peer_name=peer,
        target=1.0,
        higher_is_better=True,
        detail={"accuracy_by_seed": dict(found)},
    )


def federated(seed: int, rounds_total: int, nodes: list[int], ensemble: Ensemble | None = None) -> float:
    """Accuracy in percent of the student after a run over these devices; without an ensemble all train the student."""
    from fogline_client.training.app import build_app
    from fogline_recipes import parameters
    from fogline_server.training import rounds
    from fogline_server.training.ensemble.rounds import Sizes
    from fogline_server.training.in_process import InProcessGrid
    from fogline_server.training.spec import RunSpec
    from fogline_shared import flower

    recipe = SizedDigits(seed)
    spec = RunSpec(recipe=recipe.name, rounds=rounds_total, seed=seed, ensemble=ensemble or Ensemble()).resolved(recipe)
    grid = InProcessGrid({node: (build_app(recipe), {"device": str(node)}) for node in nodes})
    strategy, model = spec.rule().build(recipe), recipe.model("student", seed=seed)
    arrays = flower.to_record(parameters.read(model))
    statistics_, _ = rounds.gather_statistics(grid, recipe)
    sizes = Sizes(recipe, spec) if spec.ensemble else None
    for number in range(1, spec.total_rounds + 1):
        if sizes is not None:
            trained = sizes.train(grid, strategy, arrays, number, statistics=statistics_, classes=CLASSES)
        else:
            trained = rounds.train(
                grid,
                strategy,
                arrays,
                number,
                size="student",
                plan=spec.train_plan(recipe, number),
                statistics=statistics_,
                max_norm_ratio=spec.max_norm_ratio,
            )
        arrays = trained.arrays
    parameters.write(model, flower.arrays_of(arrays))
    return 100 * recipe.evaluate(model, recipe.unseen(), statistics_.standardisation).accuracy
