"""Counts predictions per artifact. ``observe`` is on the path of every prediction: a lock and a few additions."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

from fogline_client.inference.values import Observation
from fogline_client.telemetry.inputs import EVERY_S, Copies, Drift, Inputs, copies_of
from fogline_shared.protocol import TelemetryWindow
from fogline_shared.sketch import Sketch, merge

# Where a run of distinct wrong labels would otherwise grow the counts without bound.
MAX_CLASSES = 10_000


@dataclass(frozen=True, kw_only=True)
class Health:
    """All that an artifact did since this process started."""

    predictions: int = 0
    errors: int = 0


@dataclass(frozen=True, kw_only=True)
class Distributions:
    """Of successful and failed predictions the latencies, of successful ones the confidences."""

    latency_us: Sketch = field(default_factory=Sketch)
    confidence_pct: Sketch = field(default_factory=Sketch)

    @classmethod
    def sum(cls, parts: Collection[Distributions | _Tally]) -> Distributions:
        """Added up, in sketches of its own."""
        return cls(
            latency_us=merge(part.latency_us for part in parts),
            confidence_pct=merge(part.confidence_pct for part in parts),
        )


@dataclass(frozen=True, kw_only=True)
class Overview(Distributions):
    """All artifacts together since this process started; ``lately``: in the last window and the one that has begun."""

    predictions: int
    errors: int
    lately: Distributions


@dataclass(kw_only=True)
class _Tally:
    start: float
    copies: Copies | None = None
    predictions: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    latency_us: Sketch = field(default_factory=Sketch)
    confidence_pct: Sketch = field(default_factory=Sketch)
    class_counts: list[int] = field(default_factory=list)

    def add(self, seen: Observation) -> None:
        self.predictions += 1
        if math.isfinite(seen.latency_us):
            self.latency_us.add(seen.latency_us)
        if seen.truth is not None:
            self.labelled += 1
        if seen.error:
            self.errors += 1
            return
        self.confidence_pct.add(100.0 * seen.confidence)
        self.correct += seen.truth is not None and seen.truth == seen.label
        if 0 <= seen.label < MAX_CLASSES:
            self.class_counts.extend([0] * (seen.label + 1 - len(self.class_counts)))
            self.class_counts[seen.label] += 1
        if self.copies is not None and seen.x is not None:
            self.copies.add(seen.x)


class Recorder:
    """Thread-safe. Times are Unix seconds, given by the caller when it cuts.

    ``input_every_s``: at most one input in so many seconds of ``clock`` is looked at for drift.
    """

    def __init__(
        self, *, now: float, input_every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lock = threading.Lock()
        self._cutting = threading.Lock()
        self._inputs = Inputs()
        self._copies = partial(copies_of, every_s=input_every_s, clock=clock)
        self._since = now
        self._tallies: dict[str, _Tally] = {}
        self._health: dict[str, tuple[int, int]] = {}
        self._total, self._last = Distributions(), Distributions()
        self._drifts: dict[str, Drift] = {}

    def observe(self, seen: Observation) -> None:
        """Count one prediction (one that failed has an ``error``)."""
        with self._lock:
            tally = self._tallies.get(seen.digest)
            if tally is None:
                tally = self._tallies[seen.digest] = _Tally(start=self._since, copies=self._copies(seen.manifest))
            tally.add(seen)
            predictions, errors = self._health.get(seen.digest, (0, 0))
            self._health[seen.digest] = (predictions + 1, errors + bool(seen.error))

    def health(self, digest: str) -> Health:
        """What the artifact did since this process started."""
        with self._lock:
            predictions, errors = self._health.get(digest, (0, 0))
        return Health(predictions=predictions, errors=errors)

    def overview(self) -> Overview:
        """What was until now."""
        with self._lock:
            running = list(self._tallies.values())
            total = Distributions.sum([self._total, *running])
            return Overview(
                predictions=sum(predictions for predictions, _ in self._health.values()),
                errors=sum(errors for _, errors in self._health.values()),
                latency_us=total.latency_us,
                confidence_pct=total.confidence_pct,
                lately=Distributions.sum([self._last, *running]),
            )

    def drift(self, digest: str) -> Drift:
        """What was last found of the artifact's inputs; without inputs: nothing yet, or others have been asked since."""
        with self._cutting:
            return self._drifts.get(digest, Drift())

    def cut(self, *, now: float, boot_id: str) -> Sequence[TelemetryWindow]:
        """End the window: one per artifact that predicted, without a sequence number yet. A quiet window is none."""
        with self._lock:
            tallies, self._tallies, self._since = self._tallies, {}, now
            self._last = Distributions.sum(tallies.values())
            self._total = Distributions.sum([self._total, self._last])
        with self._cutting:
            drifts = {digest: self._inputs.end_window(digest, tally.copies) for digest, tally in tallies.items()}
            told = {digest: drift for digest, drift in drifts.items() if drift.inputs}
            self._drifts = told or self._drifts
        return [
            TelemetryWindow(
                boot_id=boot_id,
                seq=0,
                artifact_digest=digest,
                # The clock may have been set back meanwhile; a window that ended before it began would be refused.
                start=min(tally.start, now),
                end=now,
                predictions=tally.predictions,
                errors=tally.errors,
                labelled=tally.labelled,
                correct=tally.correct,
                latency_us=tally.latency_us,
                confidence_pct=tally.confidence_pct,
                class_counts=tuple(tally.class_counts),
                drift=drifts[digest].psi,
                drift_inputs=drifts[digest].inputs,
            )
            for digest, tally in tallies.items()
        ]
