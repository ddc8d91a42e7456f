"""Share of labelled predictions that were right, where devices learn the truth afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from fogline_server.rollouts.gates._shortfall import Mean, Shortfall
from fogline_server.telemetry.evidence import Evidence


@dataclass(frozen=True, kw_only=True)
class Accuracy(Shortfall):
    """Needs labels in the telemetry; without any it holds for ever."""

    quantity: ClassVar[str] = "accuracy"

    def mean(self, evidence: Evidence) -> Mean:
        return Mean(total=evidence.correct, count=evidence.labelled)


GATE = Accuracy
