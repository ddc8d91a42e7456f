"""What a teacher at the cloud is worth to a student: Fashion-MNIST, few labels on devices, many images without at the cloud.

Twenty devices with two thousand labelled images between them train the teacher and the student by rounds. Then the student is
taught at the cloud, as for a release, on 57,000 unlabelled images; its control has the same steps on the same images and
teaches itself. Compared on the ten thousand test images, whole pipeline, three seeds.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from harness import Figure, Options, progress

from compression.shipped import Shipped, Trained, federated, shipped

if TYPE_CHECKING:
    from torch.nn import Module

SEEDS = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Accuracies on the test images, in percent, and the release's own verdict."""

    plain: float
    control: float
    distilled: float
    teacher: float
    sentence: str
    shipped: Shipped


def measure(options: Options) -> list[Figure]:
    """The distilled student against its teacher, its control and itself before. None where the images are not."""
    from fogline_recipes.fashion import data
    from fogline_shared.errors import Unavailable

    try:
        data.holdout()
    except Unavailable as error:
        print(f"Skipped: {error.message}")
        return []
    seeds = SEEDS[:1] if options.quick else SEEDS
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        outcomes = list(pool.map(_outcome, seeds, [options] * len(seeds)))
    for seed, outcome in zip(seeds, outcomes, strict=True):
        progress(f"seed {seed}: {outcome.sentence}")
    return _figures(outcomes)


def _outcome(seed: int, options: Options) -> Outcome:
    import torch

    from fogline_recipes.fashion import Fashion
    from fogline_server.distillation.lesson import Teacher
    from fogline_server.distillation.study import study
    from fogline_server.distillation.teaching import Teaching
    from fogline_server.training.ensemble.distil import logits_of

    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    recipe = Fashion()
    teacher, student = (federated(recipe, size, seed, options) for size in ("teacher", "student"))
    teaching = Teaching(seeds=1, steps=40) if options.quick else Teaching(seeds=1)
    knowing = Teacher(answers=lambda x: logits_of(teacher.model, x, teacher.standardisation).astype(np.float32))
    told = study(recipe, student.model, [knowing], student.standardisation, teaching)
    unseen = recipe.unseen()

    def accuracy(model: Module, trained: Trained) -> float:
        return 100 * recipe.evaluate(model, unseen, trained.standardisation).accuracy

    return Outcome(
        plain=accuracy(student.model, student),
        control=accuracy(told.control, student),
        distilled=accuracy(told.model, student),
        teacher=accuracy(teacher.model, teacher),
        sentence=told.sentence,
        shipped=shipped(recipe, teacher, replace(student, model=told.model), options),
    )


def _figures(outcomes: Sequence[Outcome]) -> list[Figure]:
    def each(name: str) -> list[float]:
        return [getattr(outcome, name) for outcome in outcomes]

    behind = [o.teacher - o.distilled for o in outcomes]
    detail: Mapping[str, object] = {name: each(name) for name in ("plain", "control", "distilled", "teacher")}
    return [
        Figure(
            name="distilled student behind its teacher, test images",
            unit="points",
            ours=statistics.mean(behind),
            spread=_sd(behind),
            peer=2.0,
            peer_name="limit",
            target=1.0,
            detail=dict(detail),
        ),
        _against("control that teaches itself", each("distilled"), each("control")),
        _against("student as its rounds left it", each("distilled"), each("plain")),
    ]


def _against(name: str, ours: Sequence[float], peer: Sequence[float]) -> Figure:
    return Figure(
        name=f"distilled student against the {name}",
        unit="%",
        ours=statistics.mean(ours),
        spread=_sd([a - b for a, b in zip(ours, peer, strict=True)]),
        peer=statistics.mean(peer),
        peer_name=name.split(maxsplit=1)[0],
        target=1.0,
        higher_is_better=True,
    )


def _sd(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
