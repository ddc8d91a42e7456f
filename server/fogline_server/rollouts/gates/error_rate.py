"""Share of predictions that failed (exceptions, NaN outputs): must be below a limit."""

from __future__ import annotations

from dataclasses import dataclass

from fogline_server.rollouts.gates.base import Gate, GateResult
from fogline_server.rollouts.sequential import interval
from fogline_server.telemetry.evidence import Evidence
from fogline_shared.states import Verdict


@dataclass(frozen=True, kw_only=True)
class ErrorRate(Gate):
    """``max_rate``: the limit, a share of all predictions."""

    max_rate: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("max_rate", 0.0, 1.0)

    def judge(self, candidate: Evidence, baseline: Evidence) -> GateResult:
        """PASS once the rate is surely at or below the limit, FAIL once it is surely above."""
        del baseline
        if not candidate.predictions:
            return GateResult(verdict=Verdict.HOLD, reason="no predictions yet", limit=self.max_rate)
        scale = 1.0 / self.design_effect
        bounds = interval(candidate.errors * scale, candidate.predictions * scale, alpha=self.alpha)
        if bounds.low > self.max_rate:
            verdict, what = Verdict.FAIL, f"the error rate is above {self.max_rate:.2%}: at least {bounds.low:.2%}"
        elif bounds.high <= self.max_rate:
            verdict, what = Verdict.PASS, f"the error rate is within {self.max_rate:.2%}: at most {bounds.high:.2%}"
        else:
            verdict, what = Verdict.HOLD, f"between {bounds.low:.2%} and {bounds.high:.2%}: too few predictions to tell"
        return GateResult(
            verdict=verdict,
            reason=what,
            observed=candidate.errors / candidate.predictions,
            limit=self.max_rate,
            samples=candidate.predictions,
            devices=candidate.devices,
        )


GATE = ErrorRate
