"""The holdout gate: whether a round's new model may take the old one's place. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.checks import from_fields, number
from fogline_shared.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from fogline_shared.recipe import Evaluation, Recipe


@dataclass(frozen=True, kw_only=True)
class Gate:
    """``max_drop``: by how many points of accuracy on the recipe's holdout a round may make the model worse; None: no gate.

    ``patience``: so many refused rounds in a row end the run. Raises InvalidInput ``invalid_run``, naming field and range.
    """

    max_drop: float | None = None
    patience: int = 5

    def __post_init__(self) -> None:
        if self.max_drop is not None:
            number("gate.max_drop", self.max_drop, low=0.0, high=100.0)
        number("gate.patience", self.patience, low=1, high=100_000, whole=True)

    @property
    def on(self) -> bool:
        """Whether it looks at all."""
        return self.max_drop is not None

    def check_recipe(self, recipe: Recipe) -> None:
        """As :meth:`check_holdout`, with the recipe's own; without a gate nothing is loaded."""
        if self.on:
            self.check_holdout(recipe.name, recipe.holdout())

    def check_holdout(self, recipe: str, holdout: object) -> None:
        """Raise InvalidInput ``gate_without_holdout`` if there is a gate and nothing to measure by."""
        if self.on and holdout is None:
            raise InvalidInput("gate_without_holdout", f"recipe {recipe} has no holdout: gate.max_drop has no meaning")

    def refuses(
        self, number: int, old: Evaluation, new: Evaluation, arrays: Iterable[NDArray[Any]]
    ) -> dict[str, str] | None:
        """Why the round's model is refused, as a code and a message; None: it may be kept. ``arrays``: the new model's."""
        if self.max_drop is None:
            return None
        if not math.isfinite(new.loss) or not all(np.isfinite(array).all() for array in arrays):
            text = f"round {number} made a model with values, or a loss on the holdout, that are not finite"
            return {"code": "model_not_finite", "message": text}
        drop = 100.0 * (old.accuracy - new.accuracy)
        # An accuracy is a whole number of examples: what is beyond is not the rounding of a subtraction.
        if drop <= self.max_drop + 1e-9:
            return None
        text = f"{100 * old.accuracy:.2f} % before round {number}, {100 * new.accuracy:.2f} % after it"
        return {
            "code": "holdout_drop",
            "message": f"holdout accuracy {text}: {drop:.2f} points, allowed are {self.max_drop:g}",
        }

    def check_patience(self, refusals: int, why: str) -> None:
        """Raise Conflict ``rounds_refused`` when so many rounds in a row were refused; ``why``: the last one's message."""
        if self.on and refusals >= self.patience:
            raise Conflict("rounds_refused", f"{refusals} rounds in a row were refused; the last: {why}"[:400])

    @classmethod
    def from_json(cls, value: object) -> Gate:
        """Inverse of ``asdict``; fields left out have their defaults. Raises InvalidInput ``invalid_run``."""
        return from_fields(cls, value, name="gate", code="invalid_run")
