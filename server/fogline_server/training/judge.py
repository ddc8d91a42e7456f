"""What the recipe's holdout says of a run's models: a figure for each round, and the gate's verdict on it."""

from __future__ import annotations

from collections.abc import Mapping

from fogline_recipes import parameters
from fogline_server.training.gate import Gate
from fogline_server.training.statistics import Statistics
from fogline_shared import flower
from fogline_shared.flower import ArrayRecord
from fogline_shared.recipe import Evaluation, Recipe


class Judge:
    """Evaluates in a model of its own. Raises InvalidInput ``gate_without_holdout``."""

    def __init__(self, recipe: Recipe, size: str, gate: Gate) -> None:
        self._recipe, self._gate = recipe, gate
        self._holdout = recipe.holdout()
        gate.check_holdout(recipe.name, self._holdout)
        self._model = recipe.model(size, seed=0)
        # How the parameters do that the run stands at (once the gate has asked), and those measured last.
        self._present: Evaluation | None = None
        self._measured: Evaluation | None = None

    def measure(self, arrays: ArrayRecord, statistics: Statistics) -> Mapping[str, float]:
        """A round's figures; none without a holdout."""
        self._measured = self._evaluate(arrays, statistics)
        if self._measured is None:
            return {}
        return {"holdout_accuracy": self._measured.accuracy, "holdout_loss": self._measured.loss}

    def refusal(
        self, number: int, old: ArrayRecord, new: ArrayRecord, statistics: Statistics
    ) -> Mapping[str, str] | None:
        """Why the gate refuses ``new``, which was measured last, as a code and a message; None: it may be kept."""
        if not self._gate.on:
            return None
        if self._present is None:
            self._present = self._evaluate(old, statistics)
        assert self._present is not None, "a gate was refused without a holdout"
        assert self._measured is not None
        return self._gate.refuses(number, self._present, self._measured, flower.arrays_of(new).values())

    def keep(self) -> None:
        """The run goes on from what was measured last."""
        self._present = self._measured

    def _evaluate(self, arrays: ArrayRecord, statistics: Statistics) -> Evaluation | None:
        if self._holdout is None:
            return None
        parameters.write(self._model, flower.arrays_of(arrays))
        return self._recipe.evaluate(self._model, self._holdout, statistics.standardisation)
