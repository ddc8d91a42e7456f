"""Try a recipe on one device's data, without a fleet: what it declares, what it gives, and one epoch of each size.

``fogline recipe check`` adds the export. Everything wrong is InvalidInput with a code and a sentence, the first one found.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fogline_recipes import parameters
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import (
    Dataset,
    Options,
    Recipe,
    Standardisation,
    TrainPlan,
    check_data,
    check_examples,
    root_data,
)


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One size after one epoch on the device's data. ``accuracy`` on the holdout, else on that data."""

    parameters: dict[str, NDArray[np.float32]]
    examples: int
    loss: float
    accuracy: float
    seconds: float

    @property
    def count(self) -> int:
        """Numbers in the model."""
        return sum(array.size for array in self.parameters.values())


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Examples by part of the data (``device``, ``holdout`` …; None: the recipe has no such part) and tries by size."""

    examples: Mapping[str, int | None]
    standardisation: Standardisation
    sizes: Mapping[str, Tried]


def check(recipe: Recipe, options: Options) -> Checked:
    """Try all that a recipe declares.

    Raises InvalidInput: what ``device_data`` raises, ``empty_dataset``, ``invalid_dataset``, ``root_overlaps`` or
    ``broken_recipe``.
    """
    device = check_data(recipe, recipe.device_data(options), what="the device's data")
    holdout, unseen, transfer = recipe.holdout(), recipe.unseen(), recipe.transfer()
    for what, part in (("the holdout", holdout), ("the unseen data", unseen)):
        if part is not None:
            check_data(recipe, part, what=what)
    root = None if recipe.root() is None else root_data(recipe)
    if transfer is not None:
        check_examples(recipe, transfer, what="the transfer set")
    sums = recipe.channel_sums(device)
    channels = recipe.input_shape[0]
    if len(sums.total) != channels or len(sums.squares) != channels or not sums.count > 0:
        raise _broken(f"channel_sums gives {len(sums.total)} sums of {sums.count:g} values for {channels} channels")
    parts = {"device": device, "holdout": holdout, "unseen": unseen, "root": root, "transfer": transfer}
    standardisation = sums.standardisation()
    return Checked(
        examples={name: None if part is None else len(part) for name, part in parts.items()},
        standardisation=standardisation,
        sizes={size: _tried(recipe, size, device, holdout or device, standardisation) for size in recipe.sizes},
    )


def _tried(recipe: Recipe, size: str, data: Dataset, judge: Dataset, standardisation: Standardisation) -> Tried:
    model, again = recipe.model(size, seed=0), parameters.read(recipe.model(size, seed=0))
    first = parameters.read(model)
    if set(first) != set(again) or any(not np.array_equal(array, again[name]) for name, array in first.items()):
        raise _broken(f"model({size!r}, seed=0) has other weights each time it is made")
    plan = replace(recipe.plans.get(size, TrainPlan()), epochs=1)
    began = time.monotonic()
    result = recipe.train(model, data, standardisation, plan)
    seconds = time.monotonic() - began
    if result.examples != len(data) or not math.isfinite(result.loss):
        raise _broken(f"train({size!r}) reports {result.examples} of {len(data)} examples and a loss of {result.loss}")
    trained = parameters.read(model)
    if not all(np.isfinite(array).all() for array in trained.values()):
        raise _broken(f"train({size!r}) leaves weights that are not finite: is the learning rate too high?")
    evaluation = recipe.evaluate(model, judge, standardisation)
    return Tried(
        parameters=trained,
        examples=result.examples,
        loss=result.loss,
        accuracy=evaluation.accuracy,
        seconds=seconds,
    )


def _broken(why: str) -> InvalidInput:
    return InvalidInput("broken_recipe", why)
