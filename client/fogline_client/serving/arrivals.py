"""How long a request may have lain in the kernel before the event loop read it: admission counts that as waiting."""

from __future__ import annotations

import asyncio
import time


class Arrivals:
    """Since when something that is read now may have lain in the kernel: since the loop looked the last time but one.

    While data keeps coming, a callback a turn of the loop notes when it looked; without data there is none.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._earliest = self._looked = 0.0
        self._watching = self._more = False

    def earliest(self) -> float:
        """By the monotonic clock. Call it for whatever has been read."""
        self._more = True
        if not self._watching:
            self._watching = True
            self._earliest = self._looked = time.monotonic()
            self._loop.call_soon(self._turn)
        return self._earliest

    def _turn(self) -> None:
        self._earliest, self._looked = self._looked, time.monotonic()
        if self._more:
            self._more = False
            self._loop.call_soon(self._turn)
        else:
            self._watching = False
