"""Options written ``name`` or ``name:number``, and the chance that belongs to one device, round or purpose."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Amount:
    """The number behind a name. ``default`` None: it must be given."""

    low: float
    high: float
    default: float | None = None
    whole: bool = False


def choose(field: str, text: str, choices: Mapping[str, Amount | None]) -> tuple[str, float]:
    """The name and its number (0 for a name without one).

    Raises InvalidInput ``invalid_simulation`` that names the field and what there is.
    """
    name, colon, given = text.partition(":")
    if name not in choices:
        known = ", ".join(f"{each}:NUMBER" if amount else each for each, amount in choices.items())
        raise InvalidInput("invalid_simulation", f"{field} must be one of {known}; got {text!r}", field=field)
    amount = choices[name]
    if amount is None:
        if colon:
            raise InvalidInput("invalid_simulation", f"{field} {name} takes no number; got {text!r}", field=field)
        return name, 0.0
    if not colon and amount.default is not None:
        return name, amount.default
    number(
        f"{field} {name}", _read(given), low=amount.low, high=amount.high, code="invalid_simulation", whole=amount.whole
    )
    return name, float(given)


def chance(seed: int, purpose: str, *of: int) -> np.random.Generator:
    """A generator of its own for each purpose, device and round: who is asked first changes nothing."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *of])


def _read(text: str) -> int | float | str:
    """The number a person typed, or the text when it is none."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
