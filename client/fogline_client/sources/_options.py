"""Options of sources. They may come as text, from a command line: here they become what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fogline_shared.errors import InvalidInput


def number(options: Any, name: str, *, low: float, high: float, whole: bool = False) -> None:
    """Make the option a float, or an int; raise InvalidInput ``invalid_source_option`` outside of [low, high]."""
    given = getattr(options, name)
    try:
        value = int(given) if whole and not isinstance(given, float) else float(given)
    except (TypeError, ValueError):
        value = float("nan")
    if isinstance(given, bool) or not low <= value <= high or (whole and value != int(value)):
        kind = "a whole number" if whole else "a number"
        raise InvalidInput(
            "invalid_source_option", f"{name} is {kind} from {low:.15g} to {high:.15g}, got {given!r}", field=name
        )
    object.__setattr__(options, name, int(value) if whole else value)


def flag(options: Any, name: str) -> None:
    """Make the option a bool; raise InvalidInput ``invalid_source_option``."""
    given = getattr(options, name)
    if isinstance(given, bool | str | int) and given in {True, "true", "1", "yes"}:
        object.__setattr__(options, name, True)
    elif isinstance(given, bool | str | int) and given in {False, "false", "0", "no"}:
        object.__setattr__(options, name, False)
    else:
        raise InvalidInput("invalid_source_option", f"{name} is true or false, got {given!r}", field=name)


def text(options: Any, name: str) -> None:
    """Raise InvalidInput ``invalid_source_option`` unless the option is a text with something in it, or a path."""
    given = getattr(options, name)
    if not isinstance(given, str | Path) or not str(given):
        raise InvalidInput("invalid_source_option", f"{name} is a text, got {given!r}", field=name)


def word(options: Any, name: str, known: tuple[str, ...]) -> None:
    """Raise InvalidInput ``invalid_source_option`` unless the option is one of the words."""
    if (given := getattr(options, name)) not in known:
        raise InvalidInput("invalid_source_option", f"{name} is one of {', '.join(known)}; got {given!r}", field=name)
