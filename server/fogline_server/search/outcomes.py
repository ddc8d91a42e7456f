"""What came of a candidate at a rung. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fogline_server.compression.front import Measured
from fogline_server.search.space import Entry


@dataclass(frozen=True, kw_only=True)
class Tried:
    """``share``: of its training. ``cached``: it was there already. Without ``metrics`` it failed, as ``error`` says."""

    entry: Entry
    key: str
    share: float
    cached: bool
    digest: str | None
    size: int | None
    metrics: Mapping[str, Any] | None
    error: Mapping[str, Any] | None

    def form(self, half: str = "choosing") -> Measured:
        """As it was measured on a half of the examples; only with metrics."""
        assert self.metrics is not None
        return Measured.of(self.entry.name, {**self.metrics[half], **self.metrics})
