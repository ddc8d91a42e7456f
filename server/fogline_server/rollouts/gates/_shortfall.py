"""What the accuracy and confidence gates share: a mean in [0, 1] against a floor and against the baseline's mean."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from fogline_server.rollouts.gates.base import Gate, GateResult
from fogline_server.rollouts.sequential import Interval, interval
from fogline_server.telemetry.evidence import Evidence
from fogline_shared.errors import InvalidInput
from fogline_shared.states import Verdict


@dataclass(frozen=True, kw_only=True)
class Mean:
    """A sum of ``count`` values in [0, 1]."""

    total: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Shortfall(Gate):
    """``minimum``: a floor for the mean; ``max_drop``: how far it may lie below the baseline's. None: not asked."""

    minimum: float | None = None
    max_drop: float | None = 0.05

    quantity: ClassVar[str]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("minimum", 0.0, 1.0, optional=True)
        self.require("max_drop", 0.0, 1.0, optional=True)
        if self.minimum is None and self.max_drop is None:
            raise InvalidInput("invalid_gate", f"the {self.quantity} gate needs minimum, max_drop or both")

    @property
    def needs_baseline(self) -> bool:
        """With a floor it can do without."""
        return self.minimum is None

    @abstractmethod
    def mean(self, evidence: Evidence) -> Mean:
        """The quantity."""

    def judge(self, candidate: Evidence, baseline: Evidence) -> GateResult:
        """PASS once the mean is surely high enough, FAIL once it is surely too low.

        The drop is judged from two intervals at alpha/2 each. A floor alone decides while there is no baseline.
        """
        ours, theirs = self.mean(candidate), self.mean(baseline)
        if not ours.count:
            return GateResult(verdict=Verdict.HOLD, reason=f"no {self.quantity} measured yet", limit=self.minimum)
        if not theirs.count and self.minimum is None:
            return self._result(Verdict.HOLD, f"no {self.quantity} of an earlier release to compare with", ours, None)
        mine, reference = self._interval(ours), self._interval(theirs)
        compare = self.max_drop is not None and theirs.count > 0
        lowest = max(self.minimum or 0.0, reference.low - self.max_drop if compare and self.max_drop else 0.0)
        safest = max(self.minimum or 0.0, reference.high - self.max_drop if compare and self.max_drop else 0.0)
        limit = max(
            self.minimum or 0.0, theirs.total / theirs.count - self.max_drop if compare and self.max_drop else 0.0
        )
        spread = f"{self.quantity} between {mine.low:.1%} and {mine.high:.1%}, limit {limit:.1%}"
        if mine.high < lowest:
            return self._result(Verdict.FAIL, f"{spread}: surely too low", ours, limit)
        if mine.low >= safest:
            return self._result(Verdict.PASS, f"{spread}: surely enough", ours, limit)
        return self._result(Verdict.HOLD, f"{spread}: too few samples to tell", ours, limit)

    def _interval(self, mean: Mean) -> Interval:
        scale = 1.0 / self.design_effect
        return interval(mean.total * scale, mean.count * scale, alpha=self.alpha / 2)

    def _result(self, verdict: Verdict, reason: str, mean: Mean, limit: float | None) -> GateResult:
        return GateResult(
            verdict=verdict, reason=reason, observed=mean.total / mean.count, limit=limit, samples=mean.count
        )
