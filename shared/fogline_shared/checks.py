"""Checks of numbers that a person typed: the message names the field, the range and what was given."""

from __future__ import annotations

import math

from fogline_shared.errors import InvalidInput


def number(
    field: str, value: object, *, low: float, high: float, code: str = "invalid_run", whole: bool = False
) -> None:
    """Raise InvalidInput ``code`` unless ``value`` is a finite number in [low, high] (an integer when ``whole``)."""
    kinds = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or not low <= value <= high:
        kind = "an integer" if whole else "a number"
        raise InvalidInput(
            code, f"{field} must be {kind} from {low:g} to {high:g}, got {value!r}", field=field, low=low, high=high
        )
