"""What lies between two stages of a pipeline: a queue with a bound, and a rule for when it is full."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

WHEN_FULL = ("drop_oldest", "reject")


class Bounded(Generic[T]):
    """Several threads put, one gets. ``drop_oldest``: the newest counts most; ``reject``: whoever puts waits for room."""

    def __init__(self, capacity: int, when_full: str) -> None:
        self._capacity = capacity
        self._drops = when_full == "drop_oldest"
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.dropped = self.refused = 0

    def put(self, item: T) -> None:
        """Add it; after :meth:`close` it is ``refused``."""
        with self._changed:
            while not self._drops and len(self._items) >= self._capacity and not self._closed:
                self._changed.wait()
            if self._closed:
                self.refused += 1
                return
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()

    def get(self) -> T | None:
        """The oldest; waits for one; None when the queue was closed and all is taken."""
        with self._changed:
            while not self._items and not self._closed:
                self._changed.wait()
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Nothing more comes; what is there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
