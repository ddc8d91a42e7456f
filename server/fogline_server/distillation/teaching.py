"""What a release asks of distillation at the cloud: one frozen, validated value. Needs neither torch nor flwr."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fogline_shared.checks import from_fields, number
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Dataset, Recipe, check_examples

RANGES: Mapping[str, tuple[float, float]] = {
    "steps": (1, 1_000_000),
    "batch_size": (2, 4096),
    "learning_rate": (1e-7, 10.0),
    "temperature": (0.1, 100.0),
    "mixup": (0.0, 100.0),
    "hint": (0.0, 1000.0),
    "seeds": (1, 20),
    "trials": (1, 200),
    "patience": (1, 1000),
}
# A trial of the search takes this share of a lesson's steps.
TRIAL = 0.25
_WHOLE = {"steps", "batch_size", "seeds", "trials", "patience"}


@dataclass(frozen=True, kw_only=True)
class Teaching:
    """How a student learns from teachers on the recipe's transfer set.

    ``steps`` of AdamW with ``batch_size`` augmented examples, the ``learning_rate`` falling by half a cosine. ``mixup``: alpha of
    the Beta distribution by which pairs of examples are blended, 0 for none. ``hint``: weight of the distance between
    inner features, besides that between answers; needs a recipe with ``hints``. ``seeds``: students taught, which differ in
    what chance shows them. ``trials``: settings that the search tries, the given one first; 1: no search. ``patience``: of
    the twenty evaluations of a lesson, how many may pass without a better one.
    Raises InvalidInput ``invalid_teaching``, naming the field and its range.
    """

    steps: int = 2000
    batch_size: int = 64
    learning_rate: float = 3e-3
    temperature: float = 2.0
    mixup: float = 0.0
    hint: float = 0.0
    seeds: int = 3
    trials: int = 1
    patience: int = 8

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            number(f"teaching.{name}", value, low=low, high=high, whole=name in _WHOLE, code="invalid_teaching")

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise InvalidInput ``no_transfer_set``, ``no_holdout``, ``no_hints`` or ``invalid_dataset``: who cannot be taught."""
        transfer = recipe.transfer()
        if transfer is None or not len(transfer):
            message = f"recipe {recipe.name} has no transfer set (transfer()), on which a teacher could teach"
            raise InvalidInput("no_transfer_set", message, field="teaching")
        check_examples(recipe, transfer, what="the transfer set")
        if recipe.holdout() is None:
            message = f"recipe {recipe.name} has no holdout(): nobody could tell whether teaching helped"
            raise InvalidInput("no_holdout", message, field="teaching")
        if self.hint and not {"teacher", "student"} <= set(recipe.hints):
            message = f"recipe {recipe.name} names no inner features (hints) of its teacher and student"
            raise InvalidInput("no_hints", message, field="teaching.hint")

    @classmethod
    def from_json(cls, value: object) -> Teaching:
        """Inverse of ``asdict``; fields left out have their defaults. Raises InvalidInput ``invalid_teaching``."""
        return from_fields(cls, value, name="teaching", code="invalid_teaching")

    def as_json(self) -> dict[str, Any]:
        """For the release's row and report."""
        return asdict(self)


def halves(holdout: Dataset) -> tuple[Dataset, Dataset]:
    """For choosing and for judging, by lot: data often come in an order. Groups stay whole."""
    groups = np.arange(len(holdout)) if holdout.groups is None else holdout.groups
    names, member = np.unique(groups, return_inverse=True)
    first = np.isin(member, np.random.default_rng(0).permutation(len(names))[::2])
    return _part(holdout, first), _part(holdout, ~first)


def _part(data: Dataset, rows: Any) -> Dataset:
    return Dataset(x=data.x[rows], y=data.y[rows], groups=None if data.groups is None else data.groups[rows])
