"""What a stage is. To add one, add a module here with a ``STAGE``: a frozen, keyword-only dataclass of its options.

Its ``start`` gives a function from answer to answer for one stream, which may remember earlier answers. Order matters: each
stage sees what the one before it has said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from fogline_client.streams.answers import Answer
from fogline_client.streams.plugins import load

Step = Callable[[Answer], Answer | None]


class Stage(Protocol):
    """Validated options."""

    def start(self) -> Step:
        """A fresh step, with no memory; it answers None for what the sinks need not see."""


def load_stage(name: str, options: Mapping[str, Any]) -> Stage:
    """The stage of that name; raise InvalidInput ``unknown_stage`` or ``invalid_pipeline``."""
    return cast("Stage", load("stages", "STAGE", name, options))


def rescored(answer: Answer, scores: NDArray[np.float32]) -> Answer:
    """The answer with other probabilities, and the label that follows from them."""
    label = int(scores.argmax())
    return replace(answer, scores=scores, label=label, confidence=float(scores[label]))


@dataclass(frozen=True, kw_only=True)
class _Named:
    name: str
    stage: Stage


class Chain:
    """Stages in order. Their memory ends where it would mislead: at a pause, a clock set back, a model of other classes."""

    def __init__(self, stages: Sequence[tuple[str, Stage]], *, pause_s: float) -> None:
        self._stages = [_Named(name=name, stage=stage) for name, stage in stages]
        self._pause_s = pause_s
        self._steps: list[Step] = []
        self._last: Answer | None = None
        self.held_back: Counter[str] = Counter()

    def apply(self, answer: Answer) -> Answer | None:
        """What the last stage says; None, counted by the stage's name in ``held_back``, if one kept it."""
        last, self._last = self._last, answer
        if last is None or last.classes != answer.classes or not 0 <= answer.time - last.time <= self._pause_s:
            self._steps = [each.stage.start() for each in self._stages]
        for each, step in zip(self._stages, self._steps, strict=True):
            said = step(answer)
            if said is None:
                self.held_back[each.name] += 1
                return None
            answer = said
        return answer
