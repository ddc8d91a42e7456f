"""Mean confidence of predictions: falls when a model meets data it does not know, with no label needed.

Hendrycks, Gimpel, "A baseline for detecting misclassified and out-of-distribution examples", ICLR 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fogline_server.rollouts.gates._shortfall import Mean, Shortfall
from fogline_server.telemetry.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class Confidence(Shortfall):
    """A model may be confident and wrong: use it beside the accuracy gate, or where there are no labels."""

    quantity: ClassVar[str] = "confidence"

    def mean(self, evidence: Evidence) -> Mean:
        return Mean(total=evidence.confidence_sum, count=evidence.confidence_count)


GATE = Confidence
