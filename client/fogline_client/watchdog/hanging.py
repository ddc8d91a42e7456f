"""Calls that do not return."""

from __future__ import annotations

from collections.abc import Sequence

from fogline_client.inference.trial import Call
from fogline_client.watchdog.alarm import Alarm


class Hanging:
    """Knows since when each call has been seen under way.

    Time counts only as far as somebody looked: a process that was stopped for an hour, or a machine that slept, has no
    call that hangs.
    """

    def __init__(self, digest: str, *, hang_s: float) -> None:
        self._digest = digest
        self._hang_s = hang_s
        self._seen: dict[Call, float] = {}

    def look(self, running: Sequence[Call], since_last_s: float) -> Alarm | None:
        """``model_hangs`` when one of these calls was there in all looks of ``hang_s`` seconds beyond what it may well take."""
        step = min(since_last_s, self._hang_s / 2)
        self._seen = {call: self._seen[call] + step if call in self._seen else 0.0 for call in running}
        longest = max((seen for call, seen in self._seen.items() if seen - call.fair_s >= self._hang_s), default=0.0)
        if not longest:
            return None
        return Alarm(self._digest, "model_hangs", f"a call has not returned for {longest:.3g} s")
