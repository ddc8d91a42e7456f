"""Mergeable quantile sketch with fixed log-spaced buckets.

Devices keep one per measured quantity and the cloud adds them up: merging is element-wise addition, so windows of any
number of devices combine exactly. Relative error of a quantile is at most ``(GROWTH - 1) / 2`` (about 5 %), the idea of
DDSketch (Masson, Rim, Lee, VLDB 2019) with a fixed range instead of a growing one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

GROWTH = 1.1
BUCKETS = 192  # bucket i holds (GROWTH**(i-1), GROWTH**i]; the last one everything above, about 8e7
_LOG_GROWTH = math.log(GROWTH)


@dataclass(kw_only=True)
class Sketch:
    """Counts of positive values by bucket, and their sum. Values at or below 1 fall into bucket 0."""

    counts: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    sum: float = 0.0

    @classmethod
    def of(cls, counts: Sequence[int], total: float) -> Sketch:
        """Rebuild from the wire; raise ValueError when the bucket count is not ours."""
        if len(counts) not in (0, BUCKETS):
            raise ValueError(f"a sketch has {BUCKETS} buckets, got {len(counts)}")
        if not math.isfinite(total):
            raise ValueError("a sketch's sum is finite")
        return cls(counts=list(counts) or [0] * BUCKETS, sum=total)

    @property
    def count(self) -> int:
        """How many values were added."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Exact mean of the values; NaN when empty."""
        return self.sum / self.count if self.count else math.nan

    def add(self, value: float) -> None:
        """Add one value; raise ValueError on NaN."""
        if math.isnan(value):
            raise ValueError("NaN cannot be placed in a sketch")
        bucket = 0 if value <= 1.0 else min(BUCKETS - 1, math.ceil(math.log(value) / _LOG_GROWTH))
        self.counts[bucket] += 1
        self.sum += value

    def quantile(self, q: float) -> float:
        """The value below which a share ``q`` of the values lies; NaN when empty."""
        total = self.count
        if not total:
            return math.nan
        rank, seen = q * (total - 1), 0
        for bucket, n in enumerate(self.counts):
            seen += n
            if seen > rank:
                return 1.0 if bucket == 0 else GROWTH ** (bucket - 0.5)
        raise AssertionError("unreachable: the counts add up to the total")


def merge(sketches: Iterable[Sketch]) -> Sketch:
    """Element-wise sum."""
    merged = Sketch()
    for sketch in sketches:
        merged.counts = [a + b for a, b in zip(merged.counts, sketch.counts, strict=True)]
        merged.sum += sketch.sum
    return merged
