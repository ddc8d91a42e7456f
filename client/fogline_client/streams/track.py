"""One sensor's samples on their way into windows: put in order within a bound, then kept while a window may need them."""

from __future__ import annotations

import heapq
import math

import numpy as np

from fogline_client.streams.fusion.base import Times, Values

_FIRST_CAPACITY = 256


class Track:
    """Bounded: at most ``limit`` samples wait to be ordered, and as many are kept in order. One thread."""

    def __init__(self, channels: int, *, limit: int) -> None:
        self._limit = limit
        self._waiting: list[tuple[float, int, Values, float]] = []
        self._arrivals = 0
        capacity = min(_FIRST_CAPACITY, limit + 1)
        self._times = np.empty(capacity, dtype=np.float64)
        self._values = np.empty((capacity, channels), dtype=np.float32)
        self._arrived = np.empty(capacity, dtype=np.float64)
        self._begin = self._end = 0
        # The latest time that came, and how many in a row came from long before it.
        self.newest = -math.inf
        self.backwards = 0

    @property
    def frontier(self) -> float:
        """Time of the last sample in order; whatever comes now and is not later is late."""
        return float(self._times[self._end - 1]) if self._end else -math.inf

    @property
    def first(self) -> float:
        """Time of the first sample that is kept; infinite when there is none."""
        return float(self._times[self._begin]) if self._end > self._begin else math.inf

    @property
    def waiting(self) -> int:
        """How many samples wait to be ordered."""
        return len(self._waiting)

    @property
    def times(self) -> Times:
        """Ascending (n,); a view."""
        return self._times[self._begin : self._end]

    @property
    def values(self) -> Values:
        """(n, channels); a view."""
        return self._values[self._begin : self._end]

    def put(self, time: float, x: Values, arrived: float) -> None:
        """Take a sample that is later than :attr:`frontier`."""
        self._arrivals += 1
        self.newest = max(self.newest, time)
        heapq.heappush(self._waiting, (time, self._arrivals, x, arrived))

    def settle(self, until: float) -> tuple[int, int]:
        """Order all samples up to that time; returns how many were of the same time as another, and how many had no room."""
        duplicates = lost = 0
        while self._waiting and (self._waiting[0][0] <= until or len(self._waiting) > self._limit):
            time, _, x, arrived = heapq.heappop(self._waiting)
            if time <= self.frontier:
                duplicates += 1
                continue
            lost += self._append(time, x, arrived)
        return duplicates, lost

    def arrival(self, time: float) -> float:
        """When the last sample that is not later than ``time`` arrived; minus infinity when there is none."""
        index = int(np.searchsorted(self.times, time, side="right")) - 1
        return float(self._arrived[self._begin + index]) if index >= 0 else -math.inf

    def after(self, time: float) -> float:
        """Time of the first sample later than ``time``; infinite when there is none."""
        index = int(np.searchsorted(self.times, time, side="right"))
        return float(self.times[index]) if index < self._end - self._begin else math.inf

    def forget(self, before: float) -> None:
        """Let go of all samples before the last one that is not later than ``before``."""
        index = int(np.searchsorted(self.times, before, side="right")) - 1
        self._begin += max(index, 0)

    def _append(self, time: float, x: Values, arrived: float) -> int:
        if self._end == len(self._times):
            self._make_room()
        self._times[self._end], self._values[self._end], self._arrived[self._end] = time, x, arrived
        self._end += 1
        if self._end - self._begin <= self._limit:
            return 0
        self._begin += 1
        return 1

    def _make_room(self) -> None:
        """Move what is kept to the front; into twice the room if it fills more than half."""
        kept = slice(self._begin, self._end)
        count = self._end - self._begin
        grown = 2 * len(self._times) if 2 * count > len(self._times) else len(self._times)
        for name in ("_times", "_values", "_arrived"):
            old = getattr(self, name)
            new = np.empty((grown, *old.shape[1:]), dtype=old.dtype)
            new[:count] = old[kept]
            setattr(self, name, new)
        self._begin, self._end = 0, count
