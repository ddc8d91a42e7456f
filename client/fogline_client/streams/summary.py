"""What a pipeline did, in numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fogline_shared.sketch import Sketch


@dataclass(frozen=True, kw_only=True)
class Summary:
    """``dropped``: what was lost, by stage and cause; ``noted``: what happened without a loss; ``failed``: sources, by code.

    A window is predicted on, or in ``dropped`` once. Latency is from a window's newest sample to its answer, in
    milliseconds, within 5 %; NaN while there is none.
    """

    samples: int = 0
    windows: int = 0
    predictions: int = 0
    delivered: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    noted: Mapping[str, int] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)
    latency_p50_ms: float = math.nan
    latency_p99_ms: float = math.nan

    def facts(self) -> dict[str, Any]:
        """As JSON, which has no NaN."""
        return {name: None if value != value else value for name, value in asdict(self).items()}  # noqa: PLR0124

    def line(self) -> str:
        """As one line."""
        parts = [
            f"samples {self.samples}",
            f"windows {self.windows}",
            f"predictions {self.predictions}",
            f"delivered {self.delivered}",
            "dropped " + (_listed(self.dropped) or "0"),
        ]
        if self.noted:
            parts.append("noted " + _listed(self.noted))
        if self.predictions:
            parts.append(f"latency p50 {self.latency_p50_ms:.2f} ms, p99 {self.latency_p99_ms:.2f} ms")
        return "; ".join(parts)


def latencies(sketch: Sketch) -> tuple[float, float]:
    """Median and 99th percentile in milliseconds, of microseconds."""
    return sketch.quantile(0.5) / 1e3, sketch.quantile(0.99) / 1e3


def counted(groups: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """One mapping of all that is not zero: ``stage.cause``, sorted."""
    found = Counter(
        {f"{stage}.{cause}": n for stage, causes in groups.items() for cause, n in dict(causes).items() if n}
    )
    return dict(sorted(found.items()))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{cause} {n}" for cause, n in counts.items())
