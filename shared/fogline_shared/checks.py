"""Checks of values that somebody else wrote: a person who typed them, or a device that sent them."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import TypeGuard, TypeVar

from fogline_shared.errors import InvalidInput

T = TypeVar("T")


def finite(value: object) -> TypeGuard[int | float]:
    """Whether it is a number, and one that a float can hold. JSON's integers may be longer than that; Python's ``float`` raises."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def number(
    field: str, value: object, *, low: float, high: float, code: str = "invalid_run", whole: bool = False
) -> None:
    """Raise InvalidInput ``code``, naming the field, the range and what was given, unless ``value`` is in [low, high].

    ``whole``: only an integer will do.
    """
    if not finite(value) or (whole and not isinstance(value, int)) or not low <= value <= high:
        kind = "an integer" if whole else "a number"
        message = f"{field} must be {kind} from {low:.15g} to {high:.15g}, got {value!r}"
        raise InvalidInput(code, message[:400], field=field, low=low, high=high)


def from_fields(kind: type[T], value: object, *, name: str, code: str) -> T:
    """A dataclass from a JSON object of its fields; those left out have their defaults.

    Raises InvalidInput ``code``, naming the field and those there are, for anything else, and what the class raises.
    """
    if not isinstance(value, Mapping):
        raise InvalidInput(code, f"{name} is an object, got {value!r}"[:400], field=name)
    known = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    if unknown := sorted(map(str, set(value) - set(known))):
        message = f"{name} has no field {unknown[0]!r}; fields: {', '.join(known)}"
        raise InvalidInput(code, message[:400], field=f"{name}.{unknown[0]}"[:100])
    return kind(**value)


def is_digest(text: str) -> bool:
    """Whether ``text`` is a SHA-256 as it is written here: 64 lower-case hexadecimal digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")
