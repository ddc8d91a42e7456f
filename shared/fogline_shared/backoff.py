"""When to try again. Full jitter: see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random


def full_jitter(rng: Random, *, base_s: float, cap_s: float) -> Iterator[float]:
    """Yield waits in seconds, each uniform in [0, min(cap, base·2ⁿ)], for ever."""
    ceiling = base_s
    while True:
        yield rng.uniform(0.0, ceiling)
        ceiling = min(cap_s, ceiling * 2)
