"""The admin API as the demo uses it: it waits for things to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from fogline_server import rest
from fogline_shared.errors import Unavailable

ENDS = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "READY", "ROLLED_BACK", "SUPERSEDED", "PAUSED"})
Row = Mapping[str, Any]


class Rest(rest.Rest):
    """Requests, and a wait."""

    def wait(self, path: str, *, timeout_s: float, seen: Callable[[Row], None] | None = None) -> rest.Json:
        """Poll until the resource's ``state`` is final; ``seen`` is called with every answer.

        Raises Unavailable ``demo_step_too_slow``.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            row = self.get(path)
            if seen:
                seen(row)
            if row["state"] in ENDS:
                return row
            if time.monotonic() > deadline:
                raise Unavailable("demo_step_too_slow", f"{path} is still {row['state']} after {timeout_s:.0f} s")
            time.sleep(0.25)
