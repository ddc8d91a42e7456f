"""The student as a device gets it, int8, beside its teacher: accuracy on people nobody trained on, bytes as sent, time.

Teacher and student are trained by rounds over the smartwatch recipe's fleet and built as a release is; three seeds.
``compression.distillation`` tells the same of Fashion-MNIST.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from harness import Figure, Options, progress

from compression.cost import sent, time_ratio
from fogline_recipes import parameters
from fogline_server.compression.evaluate import evaluate
from fogline_server.distillation.choice import CONTROL
from fogline_server.registry.build import build_artifacts
from fogline_server.registry.model import STUDENT_INT8, TEACHER
from fogline_server.registry.taught import Source
from fogline_shared import tensors
from fogline_shared.recipe import Recipe, Standardisation

if TYPE_CHECKING:
    from torch.nn import Module

SEEDS = (0, 1, 2)
FEWER_BYTES, FASTER = 80, 10


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A run's model and what its inputs are standardised by."""

    model: Module
    standardisation: Standardisation

    def source(self) -> Source:
        """As a release is built from."""
        blob = b"".join(bytes(part) for part in tensors.encode(parameters.read(self.model)))
        return Source(params=blob, standardisation=self.standardisation)


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """Points behind the teacher, and how many times fewer bytes and less time."""

    behind: float
    bytes: float
    time: float


def measure(options: Options) -> list[Figure]:
    """Three figures of the smartwatch."""
    from fogline_recipes.smartwatch import Smartwatch

    logging.getLogger("flwr").setLevel(logging.WARNING)
    recipe = Smartwatch()
    found = []
    for seed in SEEDS[:1] if options.quick else SEEDS:
        teacher, student = (federated(recipe, size, seed, options) for size in ("teacher", "student"))
        found.append(shipped(recipe, teacher, student, options))
        progress(f"seed {seed}: {found[-1]}")
    return figures("smartwatch", found, behind=1.0)


def federated(recipe: Recipe, size: str, seed: int, options: Options) -> Trained:
    """Train a size by the recipe's rounds over its fleet, in this process."""
    from fogline_client.training.app import build_app
    from fogline_server.training import whole_run
    from fogline_server.training.in_process import InProcessGrid
    from fogline_server.training.spec import RunSpec
    from fogline_shared import flower

    rounds = 1 if options.quick else recipe.rounds[size]
    spec = RunSpec(recipe=recipe.name, min_devices=1, size=size, seed=seed, rounds=rounds).resolved(recipe)
    grid = InProcessGrid({node: (build_app(recipe), held) for node, held in enumerate(recipe.fleet())})
    run = whole_run.train(grid, recipe, spec)
    model = recipe.model(size, seed=seed)
    parameters.write(model, flower.arrays_of(run.arrays))
    return Trained(model=model, standardisation=run.statistics.standardisation)


def shipped(recipe: Recipe, teacher: Trained, student: Trained, options: Options) -> Shipped:
    """Build both as a release does, and compare what comes out."""
    built = build_artifacts(recipe, {"teacher": teacher.source(), CONTROL: student.source()}).artifacts
    unseen = recipe.unseen()
    assert unseen is not None
    right = {name: evaluate(built[name], unseen).accuracy for name in (TEACHER, STUDENT_INT8)}
    first = np.ascontiguousarray(unseen.x[:1])
    return Shipped(
        behind=100 * (right[TEACHER] - right[STUDENT_INT8]),
        bytes=sent(built[TEACHER]) / sent(built[STUDENT_INT8]),
        time=1 / time_ratio(built[STUDENT_INT8], built[TEACHER], first, quick=options.quick),
    )


def figures(subject: str, found: Sequence[Shipped], *, behind: float) -> list[Figure]:
    """``behind``: by how many points the student may be."""
    losses = [each.behind for each in found]
    return [
        Figure(
            name=f"{subject}: int8 student behind its teacher",
            unit="points",
            ours=statistics.mean(losses),
            spread=_sd(losses),
            peer=behind,
            peer_name="limit",
            target=1.0,
        ),
        _times(f"{subject}: int8 student, fewer bytes than its teacher", [each.bytes for each in found], FEWER_BYTES),
        _times(f"{subject}: int8 student, faster than its teacher", [each.time for each in found], FASTER),
    ]


def _times(name: str, values: Sequence[float], limit: float) -> Figure:
    return Figure(
        name=name,
        unit="times",
        ours=statistics.mean(values),
        spread=_sd(values),
        peer=limit,
        peer_name="limit",
        target=1.0,
        higher_is_better=True,
    )


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
