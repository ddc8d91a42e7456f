"""What a pipeline says of one window or frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ABSTAINED = -1


@dataclass(frozen=True, kw_only=True)
class Answer:
    """``time``: of the window's last instant, by the streams' clock; ``scores`` (classes,) float32, probabilities.

    ``label`` is :data:`ABSTAINED`, and ``name`` empty, where no class is sure enough. ``event``: ``start`` or ``end`` of what
    ``name`` says, if a stage looks for events. ``latency_ms``: from the arrival of the newest sample.
    """

    time: float
    label: int
    confidence: float
    scores: NDArray[np.float32]
    classes: tuple[str, ...]
    digest: str
    latency_ms: float = 0.0
    event: str = ""

    @property
    def name(self) -> str:
        """The class's name."""
        return "" if self.label == ABSTAINED else self.classes[self.label]

    def facts(self) -> dict[str, Any]:
        """As JSON, with scores by class."""
        told = {
            "time": self.time,
            "label": self.label,
            "name": self.name,
            "confidence": round(self.confidence, 6),
            "scores": {name: round(float(p), 6) for name, p in zip(self.classes, self.scores, strict=True)},
            "latency_ms": round(self.latency_ms, 3),
            "digest": self.digest,
        }
        return told | ({"event": self.event} if self.event else {})
