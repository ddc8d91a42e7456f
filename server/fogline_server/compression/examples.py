"""Which inputs a model is checked and calibrated with: real ones where the recipe has them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Flag, auto

import numpy as np

from fogline_server.compression.engine import FloatArray
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import LabelArray, Recipe, Standardisation, check_examples

CALIBRATION = 512
NOISE = 64


class Needs(Flag):
    """Which examples at the cloud a method cannot do without."""

    NOTHING = 0
    CALIBRATION = auto()
    TRANSFER = auto()


@dataclass(frozen=True, kw_only=True)
class Examples:
    """What a recipe has at the cloud to compress with.

    Arrays: (n, *input_shape), raw units; ``labels``, (n,), those of ``calibration`` where known.
    """

    calibration: FloatArray | None = None
    labels: LabelArray | None = None
    transfer: FloatArray | None = None

    def calibrating(self) -> FloatArray:
        """The calibration examples; raises InvalidInput ``no_calibration_data`` or ``one_class_calibration``."""
        if self.calibration is None or not len(self.calibration):
            lacking = "the recipe has neither holdout() nor transfer(), or they are empty"
            raise InvalidInput("no_calibration_data", f"int8 and int16 calibrate on examples: {lacking}")
        if self.labels is not None and len(np.unique(self.labels)) < 2:
            message = f"all {len(self.labels)} calibration examples are of one class: ranges would fit no other"
            raise InvalidInput("one_class_calibration", message)
        return self.calibration

    def training(self) -> FloatArray:
        """The unlabelled transfer set; raises InvalidInput ``no_transfer_data``."""
        if self.transfer is None or not len(self.transfer):
            lacking = "the recipe has no transfer(), or it is empty"
            raise InvalidInput("no_transfer_data", f"methods that train do so on unlabelled examples: {lacking}")
        return self.transfer

    def check(self, needs: Needs) -> None:
        """Raise what :meth:`calibrating` and :meth:`training` raise, as far as it is needed."""
        if Needs.CALIBRATION in needs:
            self.calibrating()
        if Needs.TRANSFER in needs:
            self.training()


def calibration_examples(recipe: Recipe) -> FloatArray | None:
    """Up to 512 raw examples spread over the holdout, else over the transfer set; None: the recipe has neither."""
    holdout = recipe.holdout()
    x = holdout.x if holdout is not None else recipe.transfer()
    if x is None or not len(x):
        return None
    return np.ascontiguousarray(x[:: -(-len(x) // CALIBRATION)], dtype=np.float32)


def examples_of(recipe: Recipe, needs: Needs) -> Examples:
    """What the recipe has for a chain that needs this; the transfer set, which may be large, is only read if it does.

    Raises InvalidInput ``invalid_dataset`` for a transfer set that is not what the recipe declares.
    """
    return Examples(
        calibration=calibration_examples(recipe),
        labels=calibration_labels(recipe),
        transfer=transfer_examples(recipe) if Needs.TRANSFER in needs else None,
    )


def transfer_examples(recipe: Recipe) -> FloatArray | None:
    """The recipe's transfer set; raises InvalidInput ``invalid_dataset`` unless it is what the recipe declares."""
    x = recipe.transfer()
    if x is not None:
        check_examples(recipe, x, what="the transfer set")
    return x


def calibration_labels(recipe: Recipe) -> LabelArray | None:
    """The labels, (n,), of :func:`calibration_examples`; None: they are of the transfer set, or there are none."""
    holdout = recipe.holdout()
    if holdout is None or not len(holdout):
        return None
    return holdout.y[:: -(-len(holdout) // CALIBRATION)]


def noise_examples(recipe: Recipe, standardisation: Standardisation, *, count: int = NOISE) -> FloatArray:
    """Inputs (count, *input_shape) in raw units with the data's moments, for when there is no data at the cloud."""
    shape = tuple(recipe.input_shape)
    noise = np.random.default_rng(0).standard_normal((count, *shape))
    tail = (1,) * (len(shape) - 1)
    mean = np.asarray(standardisation.mean).reshape(-1, *tail)
    scale = np.asarray(standardisation.scale).reshape(-1, *tail)
    return np.asarray(mean + scale * noise, dtype=np.float32)
