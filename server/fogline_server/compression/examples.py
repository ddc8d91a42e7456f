"""Which inputs a model is checked and calibrated with: real ones where the recipe has them."""

from __future__ import annotations

import numpy as np

from fogline_server.compression.engine import FloatArray
from fogline_server.compression.methods.base import Examples, Needs
from fogline_shared.recipe import LabelArray, Recipe, Standardisation, check_examples

CALIBRATION = 512
NOISE = 64


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
