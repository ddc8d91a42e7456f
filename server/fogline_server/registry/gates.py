"""What a built release must satisfy before it is sealed. Pure: metrics in, verdicts out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fogline_server.registry.limits import ReleaseLimits
from fogline_server.registry.model import STUDENT, STUDENT_INT8, ReleaseSpec
from fogline_shared.states import Verdict

Metrics = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """One check of one variant. ``observed`` and ``limit``: a share, bytes or a ratio, as ``reason`` says with both."""

    variant: str
    gate: str
    verdict: Verdict
    observed: float | None
    limit: float
    reason: str

    def as_json(self) -> dict[str, Any]:
        """For the release's report."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class _Gate:
    """``observe``: what is compared, from a variant's metrics and its parent's; ``says``: a sentence, from that and the name."""

    name: str
    limit: str
    observe: Callable[[Metrics, Metrics], float]
    says: Callable[[str, float], str]
    lowest: bool = False

    def judge(self, variant: str, ours: Metrics, parent: Metrics, limit: float) -> GateResult:
        try:
            observed = round(float(self.observe(ours, parent)), 6)
        except (KeyError, TypeError, ZeroDivisionError):
            reason = f"{variant}: this was not measured, so nobody knows"
            return GateResult(
                variant=variant, gate=self.name, verdict=Verdict.HOLD, observed=None, limit=limit, reason=reason
            )
        reason = f"{self.says(variant, observed)}; {self.limit} is {limit:g}"
        return _judged(variant, self.name, observed, limit, reason, lowest=self.lowest)


_GATES = (
    _Gate(
        name="worst_class_drop",
        limit="max_worst_class_drop",
        observe=lambda ours, parent: parent["worst_class_accuracy"] - ours["worst_class_accuracy"],
        says=lambda name, seen: f"{name} is {seen:.1%} below its float parent in its worst class",
    ),
    _Gate(
        name="agreement",
        limit="min_agreement",
        observe=lambda ours, _: ours["agreement"],
        says=lambda name, seen: f"{name} labels {seen:.1%} of the examples as its float parent does",
        lowest=True,
    ),
    _Gate(
        name="calibration_error",
        limit="max_calibration_error",
        observe=lambda ours, _: ours["calibration_error"],
        says=lambda name, seen: f"the confidence of {name} is {seen:.1%} away from its accuracy",
    ),
    _Gate(
        name="artifact_bytes",
        limit="max_bytes",
        observe=lambda ours, _: ours["bytes_zstd"],
        says=lambda name, seen: f"{name} is sent as {seen:,.0f} bytes",
    ),
    _Gate(
        name="latency_ratio",
        limit="max_p50_ratio",
        observe=lambda ours, parent: ours["p50_us"] / parent["p50_us"],
        says=lambda name, seen: f"{name} takes {seen:.2f} times as long as its float parent",
    ),
)
NAMES = tuple(gate.name for gate in _GATES)


def check(spec: ReleaseSpec, metrics: Mapping[str, Metrics]) -> Sequence[GateResult]:
    """The gates of a release from its variants' metrics by name: accuracy and each limit, for int8 and for each chain there is."""
    named = {STUDENT_INT8: "int8", **{name: "variant" for name in spec.chains if name in metrics}}
    limits = ReleaseLimits.from_json(spec.limits)
    return [
        result
        for variant, kind in named.items()
        for result in (_loses_little(spec, metrics, variant, kind), *_within(limits, metrics, variant))
    ]


def _within(limits: ReleaseLimits, metrics: Mapping[str, Metrics], variant: str) -> Iterator[GateResult]:
    for gate in _GATES:
        if (limit := getattr(limits, gate.limit)) is not None:
            yield gate.judge(variant, metrics[variant], metrics[STUDENT], limit)


def _loses_little(spec: ReleaseSpec, metrics: Mapping[str, Metrics], variant: str, kind: str) -> GateResult:
    limit, called = spec.max_accuracy_drop, "int8" if kind == "int8" else variant
    parent, ours = metrics[STUDENT]["accuracy"], metrics[variant]["accuracy"]
    if parent is not None and ours is not None:
        reason = f"{called} has {ours:.1%} on the holdout, its float parent {parent:.1%}; it may lose {limit:.1%}"
        return _judged(variant, f"{kind}_accuracy_drop", round(parent - ours, 6), limit, reason)
    differing = round(1 - metrics[variant]["agreement"], 6)
    reason = f"without a holdout: {called} labels {differing:.1%} of the examples differently from its float parent"
    return _judged(variant, f"{kind}_disagreement", differing, limit, f"{reason}; {limit:.1%} may be")


def _judged(variant: str, gate: str, observed: float, limit: float, reason: str, *, lowest: bool = False) -> GateResult:
    # Asked this way round, a NaN fails.
    passes = observed >= limit if lowest else observed <= limit
    verdict = Verdict.PASS if passes else Verdict.FAIL
    return GateResult(variant=variant, gate=gate, verdict=verdict, observed=observed, limit=limit, reason=reason)
