"""What a check finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. ``code`` is stable (``docs/errors.md``); the texts are for a person.

    ``found``: what was seen; ``means``: what follows for the device; ``do``: the remedy. ``serious``: the device does not
    do its work, or soon will not; otherwise it is worth knowing.
    """

    code: str
    found: str
    means: str
    do: str
    serious: bool = True
