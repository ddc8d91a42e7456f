"""What a rollout was asked to do: a frozen, validated value that is stored as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from fogline_server.rollouts.gates.base import Gate
from fogline_shared.checks import finite
from fogline_shared.errors import InvalidInput
from fogline_shared.plugins import load_module, module_names
from fogline_shared.states import StageState

GATES = "fogline_server.rollouts.gates"
LARGEST_STAGES = 20
_YEAR_S = 366 * 86_400.0


def gate_names() -> list[str]:
    """Every gate there is."""
    return module_names(GATES)


@dataclass(frozen=True, kw_only=True)
class GateSpec:
    """A gate by name and its options; building it validates both."""

    gate: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> Gate:
        """The gate; raises InvalidInput ``unknown_gate`` or ``invalid_gate``."""
        gate: Gate = load_module(GATES, self.gate).GATE.from_options(self.gate, self.options)
        return gate


@dataclass(frozen=True, kw_only=True)
class RolloutPlan:
    """Stages and limits; times in seconds. Raises InvalidInput ``invalid_plan`` naming the field that is wrong."""

    # Up to which share of the reachable fleet each stage goes, in percent; ascending, the last one 100.
    stages: tuple[float, ...] = (10.0, 100.0)
    gates: tuple[GateSpec, ...] = (GateSpec(gate="error_rate"),)
    # Which devices: those that have every tag.
    tags: tuple[str, ...] = ()
    # Empty: the release's default variant.
    variant: str = ""
    # How long a stage's devices have to download, activate and prove the artifact.
    admit_timeout_s: float = 600.0
    # How long the candidate runs before its gates may pass it; they may fail it at any time.
    soak_s: float = 60.0
    # How long gates may hold after the soak before the rollout pauses for a person.
    stage_timeout_s: float = 3600.0
    # Share of a stage's devices that must have succeeded when admission ends.
    success_percent: float = 90.0
    # Devices of a stage that may refuse or revert the artifact before the stage fails.
    max_failures: int = 0
    # How long a device watches a fresh artifact before it commits to it.
    probation_s: float = 5.0
    # How far back the earlier artifact's telemetry counts as the baseline.
    baseline_s: float = 7 * 86_400.0
    # How long a rollback waits for online devices to confirm.
    rollback_timeout_s: float = 600.0
    # Take the place of an unfinished rollout to the same devices instead of being refused.
    supersede: bool = False

    def __post_init__(self) -> None:
        _require(0 < len(self.stages) <= LARGEST_STAGES, "stages", f"1 to {LARGEST_STAGES} stages")
        _require(all(finite(p) and 0 < p <= 100 for p in self.stages), "stages", "percents in (0, 100]")
        _require(list(self.stages) == sorted(set(self.stages)), "stages", "ascending percents")
        _require(self.stages[-1] == 100, "stages", "a last stage of 100 percent")
        _require(all(isinstance(t, str) and 0 < len(t) <= 64 for t in self.tags), "tags", "tags of 1 to 64 characters")
        _require(isinstance(self.variant, str) and len(self.variant) <= 40, "variant", "at most 40 characters")
        for name in ("admit_timeout_s", "stage_timeout_s", "baseline_s", "rollback_timeout_s"):
            _require(finite(getattr(self, name)) and 0 < getattr(self, name) <= _YEAR_S, name, "seconds above 0")
        for name in ("soak_s", "probation_s"):
            _require(finite(getattr(self, name)) and 0 <= getattr(self, name) <= _YEAR_S, name, "seconds from 0")
        _require(finite(self.success_percent) and 0 < self.success_percent <= 100, "success_percent", "in (0, 100]")
        _require(type(self.max_failures) is int and 0 <= self.max_failures < 2**31, "max_failures", "a count")
        _require(isinstance(self.supersede, bool), "supersede", "true or false")
        _require(len({g.gate for g in self.gates}) == len(self.gates), "gates", "each gate at most once")

    def deadline(self, state: StageState, now: datetime) -> datetime | None:
        """When a stage that enters (or resumes) ``state`` has been in it too long."""
        limits = {StageState.ADMITTING: self.admit_timeout_s, StageState.EVALUATING: self.stage_timeout_s}
        return now + timedelta(seconds=limits[state]) if state in limits else None

    def to_json(self) -> dict[str, Any]:
        """For the rollout's row."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> RolloutPlan:
        """From a request or a row; missing fields take their defaults, unknown ones are refused."""
        unknown = sorted(set(value) - {f.name for f in fields(cls)})
        _require(not unknown, ", ".join(unknown), "not part of a plan")
        given = dict(value)
        for name in ("stages", "tags", "gates"):
            if name in given:
                items = given[name]
                _require(isinstance(items, Sequence) and not isinstance(items, str), name, "a list")
                given[name] = tuple(items)
        if "gates" in given:
            given["gates"] = tuple(_gate_from_json(item) for item in given["gates"])
        return cls(**given)


def _gate_from_json(value: Any) -> GateSpec:
    if isinstance(value, GateSpec):
        return value
    shape = isinstance(value, Mapping) and set(value) <= {"gate", "options"} and isinstance(value.get("gate"), str)
    _require(shape and isinstance(value.get("options", {}), Mapping), "gates", 'items {"gate": name, "options": {…}}')
    return GateSpec(gate=value["gate"], options=dict(value.get("options", {})))


def _require(holds: bool, name: str, wanted: str) -> None:  # noqa: FBT001 - an assertion's argument
    if not holds:
        raise InvalidInput("invalid_plan", f"{name}: {wanted}", field=name)
