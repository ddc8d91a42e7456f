"""Sizes, times and points as people write them: ``40kB``, ``1.5 MB``, ``2ms``, ``500us``, ``0.5``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from fogline_server.cli.api import CliError
from fogline_server.cli.exits import Exit

_BYTES = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_MICROSECONDS = {"us": 1.0, "µs": 1.0, "μs": 1.0, "ms": 1e3, "s": 1e6}
_POINTS = {"": 0.01, "%": 0.01, "points": 0.01}
_WRITTEN = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-zµμ%]*)\s*", re.IGNORECASE)


def bytes_of(text: str | None, option: str) -> int | None:
    """Whole bytes of ``40kB``, ``40 KiB`` or ``40000``. Raises CliError ``unreadable_quantity``."""
    value = _read(text, option, _BYTES, "a size such as 40kB, 1.5MB, 64KiB or 40000")
    return None if value is None else math.floor(value)


def microseconds_of(text: str | None, option: str) -> float | None:
    """Microseconds of ``2ms``, ``500us`` or ``0.1s``; a number alone says no unit. Raises CliError ``unreadable_quantity``."""
    return _read(text, option, _MICROSECONDS, "a time such as 2ms, 500us or 0.1s")


def share_of(text: str | None, option: str) -> float | None:
    """The share of percentage points: 0.005 of ``0.5``. Raises CliError ``unreadable_quantity``."""
    return _read(text, option, _POINTS, "percentage points such as 0.5")


def _read(text: str | None, option: str, units: Mapping[str, float], form: str) -> float | None:
    if text is None:
        return None
    written = _WRITTEN.fullmatch(text)
    factor = units.get(written[2].lower()) if written else None
    if written is None or factor is None:
        raise CliError(Exit.INVALID, "unreadable_quantity", f"{option} {text!r}: write {form}")
    return round(float(written[1]) * factor, 9)
