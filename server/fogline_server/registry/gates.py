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
    """The gates of a release from its variants' metrics by name: one for int8, one for each chain."""
    named = {STUDENT_INT8: "int8", **dict.fromkeys(spec.chains, "variant")}
    return [_loses_little(spec, metrics, variant, kind) for variant, kind in named.items()]


def _loses_little(spec: ReleaseSpec, metrics: Mapping[str, Mapping[str, Any]], variant: str, kind: str) -> GateResult:
    limit, called = spec.max_accuracy_drop, "int8" if kind == "int8" else variant
    parent, ours = metrics[STUDENT]["accuracy"], metrics[variant]["accuracy"]
    if parent is not None and ours is not None:
        drop = round(parent - ours, 6)
        reason = f"{called} has {ours:.1%} on the holdout, its float parent {parent:.1%}"
        return _at_most(f"{kind}_accuracy_drop", drop, limit, reason)
    differing = round(1 - metrics[variant]["agreement"], 6)
    reason = f"without a holdout: {called} labels {differing:.1%} of the examples differently from its float parent"
    return _at_most(f"{kind}_disagreement", differing, limit, reason)


def _at_most(gate: str, observed: float, limit: float, reason: str) -> GateResult:
    # "not <=" rather than ">": a NaN fails.
    verdict = Verdict.PASS if observed <= limit else Verdict.FAIL
    return GateResult(gate=gate, verdict=verdict, observed=observed, limit=limit, reason=reason)
