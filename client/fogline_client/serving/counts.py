"""What the local endpoint did since the process started, and how Prometheus reads it (``GET /metrics``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator


class Counts:
    """Written by one event loop."""

    def __init__(self) -> None:
        self.answered = 0
        # Requests that were not answered, by their code.
        self.refused: Counter[str] = Counter()
        # How often several requests were answered together, and how many these were.
        self.batches = 0
        self.batched = 0

    def text(self, *, waiting: int, connections: int) -> str:
        """The exposition format, version 0.0.4."""
        return "\n".join([*self._counters(), *_gauge("waiting", waiting), *_gauge("connections", connections), ""])

    def _counters(self) -> Iterator[str]:
        yield "# TYPE fogline_serving_answered_total counter"
        yield f"fogline_serving_answered_total {self.answered}"
        yield "# TYPE fogline_serving_refused_total counter"
        for code, times in sorted(self.refused.items()):
            yield f'fogline_serving_refused_total{{code="{code}"}} {times}'
        yield "# TYPE fogline_serving_batches_total counter"
        yield f"fogline_serving_batches_total {self.batches}"
        yield "# TYPE fogline_serving_batched_total counter"
        yield f"fogline_serving_batched_total {self.batched}"


def _gauge(name: str, value: int) -> tuple[str, str]:
    return f"# TYPE fogline_serving_{name} gauge", f"fogline_serving_{name} {value}"
