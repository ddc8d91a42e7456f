"""What a built release must satisfy before it is sealed. Pure: metrics in, verdicts out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fogline_server.registry.model import STUDENT, STUDENT_INT8, ReleaseSpec
from fogline_shared.states import Verdict


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """One check of a release. ``observed`` and ``limit`` are shares."""

    gate: str
    verdict: Verdict
    observed: float | None
    limit: float
    reason: str

    def as_json(self) -> dict[str, Any]:
        """For the release's report."""
        return asdict(self)


def check(spec: ReleaseSpec, metrics: Mapping[str, Mapping[str, Any]]) -> Sequence[GateResult]:
    """The gates of a release from its variants' metrics by name."""
    limit = spec.max_accuracy_drop
    parent, int8 = metrics[STUDENT]["accuracy"], metrics[STUDENT_INT8]["accuracy"]
    if parent is not None and int8 is not None:
        drop = round(parent - int8, 6)
        reason = f"int8 has {int8:.1%} on the holdout, its float parent {parent:.1%}"
        return [_at_most("int8_accuracy_drop", drop, limit, reason)]
    differing = round(1 - metrics[STUDENT_INT8]["agreement"], 6)
    reason = f"without a holdout: int8 labels {differing:.1%} of the examples differently from its float parent"
    return [_at_most("int8_disagreement", differing, limit, reason)]


def _at_most(gate: str, observed: float, limit: float, reason: str) -> GateResult:
    # "not <=" rather than ">": a NaN fails.
    verdict = Verdict.PASS if observed <= limit else Verdict.FAIL
    return GateResult(gate=gate, verdict=verdict, observed=observed, limit=limit, reason=reason)
