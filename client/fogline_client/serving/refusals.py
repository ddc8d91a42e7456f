"""What refusing may cost: under a storm of requests it must not keep the loop from answering. Pure.

A refused peer is told when to come back. One that asks again at once is heard at once, as long as refusals take little of the
loop's time; when they take more, it is not heard for a while.
"""

from __future__ import annotations

# Of the loop's time.
_SHARE = 0.15
# Of a connection's cost, what is not seen here: the kernel's part, and the event loop's.
_UNSEEN = 2.0
# What a burst may cost before anybody rests, and the longest rest, in seconds.
_BURST_S = 0.005
_LONGEST_S = 0.1


class Refusals:
    """How much refusing has cost lately, beyond its share."""

    def __init__(self) -> None:
        self._debt_s = self._at = 0.0

    def rest_s(self, spent_s: float, now: float) -> float:
        """How long not to hear a peer whose refusal took ``spent_s``; 0: go on hearing it."""
        paid = _SHARE * (now - self._at)
        self._debt_s = max(0.0, self._debt_s - paid) + _UNSEEN * spent_s
        self._at = now
        over = self._debt_s - _BURST_S
        return min(over / _SHARE, _LONGEST_S) if over > 0 else 0.0
