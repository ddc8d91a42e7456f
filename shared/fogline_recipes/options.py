"""Read what a device was told about its data (``fogline-agent enroll --option name=value``)."""

from __future__ import annotations

from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import Options


def whole_number(options: Options, name: str, allowed: range) -> int:
    """The option as a number of ``allowed`` (of step 1); raises InvalidInput ``invalid_option`` that names the range."""
    text = options.get(name, "")
    if text.isascii() and text.isdecimal() and int(text) in allowed:
        return int(text)
    given = f"got {text!r}" if text else "it is missing"
    raise InvalidInput(
        "invalid_option",
        f"option {name!r} must be a whole number from {allowed[0]} to {allowed[-1]}; {given}",
        field=name,
    )
