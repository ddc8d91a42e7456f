"""Calibrated confidence by temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fogline_client.streams.answers import Answer
from fogline_client.streams.stages.base import Step, rescored
from fogline_shared.checks import number


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """Softmax of the logits over ``temperature``: above 1, less sure. The label stays what it is."""

    temperature: float

    def __post_init__(self) -> None:
        number("temperature", self.temperature, low=0.01, high=100, code="invalid_pipeline")

    def start(self) -> Step:
        """Nothing is remembered."""
        return self._scaled

    def _scaled(self, answer: Answer) -> Answer:
        # Probabilities are logits up to a constant, which softmax does not see.
        logits = np.log(np.maximum(answer.scores, np.finfo(np.float32).tiny)) / self.temperature
        scores = np.exp(logits - logits.max())
        return rescored(answer, np.asarray(scores / scores.sum(), dtype=np.float32))


STAGE = Temperature
