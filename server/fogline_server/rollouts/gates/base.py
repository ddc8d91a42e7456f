"""The interface of a gate. To add one: a module here with a frozen dataclass of its options, and ``GATE = TheClass``.

A gate is pure: evidence in, result out. It is asked again and again while evidence grows, so its decisions must stay
right under continuous peeking (``rollouts.sequential``). No data is HOLD, never PASS.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from fogline_server.telemetry.evidence import Evidence
from fogline_shared.checks import finite
from fogline_shared.errors import InvalidInput
from fogline_shared.states import Verdict


@dataclass(frozen=True, kw_only=True)
class GateResult:
    """``observed`` and ``limit`` in the gate's own unit; None when there was nothing to observe or compare with."""

    verdict: Verdict
    reason: str
    observed: float | None = None
    limit: float | None = None
    samples: int = 0
    devices: int = 0

    def as_json(self, gate: str) -> dict[str, Any]:
        """For the stage's row."""
        return {"gate": gate} | asdict(self)


@dataclass(frozen=True, kw_only=True)
class Gate(ABC):
    """Options that every gate has.

    ``alpha``: chance that the gate decides wrongly, however often it looks. ``design_effect``: how many of one device's
    predictions carry the information of one independent one (Kish, 1965), such as 2 for windows that overlap by half.
    """

    alpha: float = 0.01
    design_effect: float = 1.0

    def __post_init__(self) -> None:
        self.require("alpha", 0.0, 0.5)
        self.require("design_effect", 0.0, 1e6)

    @property
    def needs_baseline(self) -> bool:
        """Whether it cannot decide without an earlier release's evidence."""
        return False

    @abstractmethod
    def judge(self, candidate: Evidence, baseline: Evidence) -> GateResult:
        """Compare what the candidate did with its limit and with what the earlier artifact did."""

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, Any]) -> Self:
        """From JSON; raises InvalidInput ``invalid_gate`` for an unknown option or a value out of range."""
        known = [f.name for f in fields(cls)]
        if unknown := sorted(set(options) - set(known)):
            raise InvalidInput("invalid_gate", f"gate {name} has no option {unknown}; known: {known}", gate=name)
        return cls(**options)

    def require(self, option: str, above: float, up_to: float, *, optional: bool = False) -> None:
        """Raise unless the option is a number in (above, up_to], or absent and ``optional``."""
        value = getattr(self, option)
        if value is None and optional:
            return
        if not finite(value) or not above < value <= up_to:
            raise InvalidInput(
                "invalid_gate", f"{option} is a number in ({above:g}, {up_to:g}], got {value!r}", option=option
            )
