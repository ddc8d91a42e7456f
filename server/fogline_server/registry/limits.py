"""What every compressed variant of a release must keep, beside its accuracy. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fogline_shared.checks import from_fields, number
from fogline_shared.errors import InvalidInput

RANGES: Mapping[str, tuple[float, float]] = {
    "max_worst_class_drop": (0.0, 1.0),
    "min_agreement": (0.0, 1.0),
    "max_calibration_error": (0.0, 1.0),
    "max_bytes": (1, 1e12),
    "max_p50_ratio": (0.01, 1000.0),
}
# Which of them need labels at the cloud.
JUDGED = ("max_worst_class_drop", "max_calibration_error")


@dataclass(frozen=True, kw_only=True)
class ReleaseLimits:
    """None: anything goes. Shares but for the last two.

    ``max_worst_class_drop``: recall of the worst class below the float parent's. ``min_agreement``: share of examples labelled as
    the float parent labels them. ``max_calibration_error``: by how much confidence and accuracy may differ. ``max_bytes``: as
    sent. ``max_p50_ratio``: median latency beside the float parent's, both measured with the release.
    Raises InvalidInput ``invalid_release_limits``, naming the limit and its range.
    """

    max_worst_class_drop: float | None = None
    min_agreement: float | None = None
    max_calibration_error: float | None = None
    max_bytes: float | None = None
    max_p50_ratio: float | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            if (value := getattr(self, name)) is not None:
                number(f"limits.{name}", value, low=low, high=high, code="invalid_release_limits")

    @classmethod
    def from_json(cls, value: object) -> ReleaseLimits:
        """From limits by name; those left out are None."""
        return from_fields(cls, value, name="limits", code="invalid_release_limits")

    def check_labels(self, recipe: str, *, labelled: bool) -> None:
        """Raise InvalidInput ``limit_without_holdout`` if a limit needs labels that the recipe does not have at the cloud."""
        needing = [name for name in JUDGED if getattr(self, name) is not None]
        if needing and not labelled:
            message = f"{needing[0]} is measured on labelled examples: recipe {recipe} has no holdout()"
            raise InvalidInput("limit_without_holdout", message, field=f"limits.{needing[0]}")
