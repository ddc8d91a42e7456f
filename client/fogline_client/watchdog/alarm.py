"""Why the watchdog goes back."""

from __future__ import annotations

from typing import NamedTuple


class Alarm(NamedTuple):
    """``digest``: of the artifact that failed; ``code``: stable, told to the coordinator (``docs/errors.md``)."""

    digest: str
    code: str
    message: str
