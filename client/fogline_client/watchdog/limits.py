"""When the watchdog goes back, as the agent's settings have it (``fogline-agent run --watchdog name=value``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fogline_shared.checks import from_fields, number

_RANGES: Mapping[str, tuple[float, float]] = {
    "watch_s": (0, 30 * 86_400),
    "not_finite": (1, 1_000_000),
    "errors": (1, 1_000_000),
    "error_share": (0, 1),
    "hang_s": (0.05, 600),
    "sample": (8, 1_000),
    "compare_every_s": (1, 86_400),
    "slower": (1.5, 1_000),
    "slower_ms": (0.1, 60_000),
    "confidence_share": (0, 0.9),
    "class_share": (0.1, 1),
    "steady_s": (1, 86_400),
}
_WHOLE = {"not_finite", "errors", "sample"}


@dataclass(frozen=True, kw_only=True)
class WatchdogLimits:
    """Raises InvalidInput ``bad_option``, naming the option and its range."""

    # How long a model is watched after its probation, the one before kept warm; 0: not at all.
    watch_s: float = 3600
    # So many answers of NaN or infinity to inputs that the model before answers.
    not_finite: int = 3
    # At least so many calls that fail where the model before does not, and more than this share of the latest.
    errors: int = 3
    error_share: float = 0.2
    # A call that does not return for so long.
    hang_s: float = 2
    # On how many inputs both models are compared, and how often.
    sample: int = 32
    compare_every_s: float = 60
    # The median on these is so many times the one of the model before, and so many milliseconds more.
    slower: float = 5
    slower_ms: float = 10
    # The mean confidence, above what guessing would have, is less than this share of that of the model before.
    confidence_share: float = 0.4
    # One class for all inputs, of which the model before gives no class more than this share.
    class_share: float = 0.8
    # A process that lived so long did not die of the model: its start is forgiven.
    steady_s: float = 60

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            number(name, getattr(self, name), low=low, high=high, whole=name in _WHOLE, code="bad_option")

    @classmethod
    def from_json(cls, given: object) -> WatchdogLimits:
        """From the settings' file or the command line; what is not said is as by default."""
        return from_fields(cls, given, name="watchdog", code="bad_option")
