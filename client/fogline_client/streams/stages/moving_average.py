"""Scores smoothed over time by an exponential moving average."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fogline_client.streams.answers import Answer
from fogline_client.streams.stages.base import Step, rescored
from fogline_shared.checks import number


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """``mean = weight · newest + (1 - weight) · mean``, from the first answer on; the label is the mean's largest class."""

    weight: float

    def __post_init__(self) -> None:
        number("weight", self.weight, low=1e-6, high=1, code="invalid_pipeline")

    def start(self) -> Step:
        """The first answer passes as it is."""
        mean: NDArray[np.float32] | None = None

        def smoothed(answer: Answer) -> Answer:
            nonlocal mean
            mean = answer.scores if mean is None else self.weight * answer.scores + (1 - self.weight) * mean
            return rescored(answer, np.asarray(mean, dtype=np.float32))

        return smoothed


STAGE = MovingAverage
