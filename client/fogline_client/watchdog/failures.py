"""Calls that fail: answers of NaN or infinity, and whatever else an engine refuses."""

from __future__ import annotations

from collections.abc import Mapping

from fogline_client.watchdog.alarm import Alarm
from fogline_client.watchdog.limits import WatchdogLimits

_NOT_FINITE = "output_not_finite"


def failing(digest: str, calls: int, failed: Mapping[str, int], limits: WatchdogLimits) -> Alarm | None:
    """``model_not_finite`` or ``model_fails``, from what became of the latest calls."""
    if (count := failed.get(_NOT_FINITE, 0)) >= limits.not_finite:
        return Alarm(digest, "model_not_finite", f"{count} of {calls} answers were NaN or infinity")
    count = sum(failed.values())
    if count >= limits.errors and count > limits.error_share * calls:
        return Alarm(digest, "model_fails", f"{count} of {calls} calls failed: {', '.join(sorted(failed))}")
    return None
