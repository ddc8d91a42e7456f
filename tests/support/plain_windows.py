"""Fusion and windows once more, as plainly as their definitions read: over whole recordings, sample by sample."""

from __future__ import annotations

import math

import numpy as np


def value(method: str, samples: list[tuple[float, list[float]]], instant: float, gap: float) -> list[float] | None:
    """What a sensor says at an instant; None: nothing that stands. ``samples``: by ascending time."""
    before = [s for s in samples if s[0] <= instant]
    after = [s for s in samples if s[0] >= instant]
    if method == "hold":
        return before[-1][1] if before and instant - before[-1][0] <= gap else None
    if method == "nearest":
        best = min(samples, key=lambda s: (abs(s[0] - instant), s[0]), default=None)
        return best[1] if best and abs(best[0] - instant) <= gap else None
    assert method == "linear"
    if before and before[-1][0] == instant:
        return before[-1][1]
    if not before or not after or after[0][0] - before[-1][0] > gap:
        return None
    (t0, a), (t1, b) = before[-1], after[0]
    return [p + (q - p) * ((instant - t0) / (t1 - t0)) for p, q in zip(a, b, strict=True)]


def windows(recordings, *, rate_hz, length, hop, fusions, gaps, holds) -> tuple[list[tuple[float, np.ndarray]], int]:
    """Every window (time of its last instant, (channels, length)), and how many cannot be; all arguments but three by sensor."""
    stamps = [t for samples in recordings.values() for t, _ in samples]
    if not stamps:
        return [], 0
    k = math.floor(min(stamps) * rate_hz / hop) - 1
    while k * hop / rate_hz < min(stamps):
        k += 1
    found, skipped = [], 0
    while (k * hop + length - 1) / rate_hz <= max(stamps):
        columns = []
        for i in range(length):
            instant = (k * hop + i) / rate_hz
            column = []
            for name, samples in recordings.items():
                said = value(fusions[name], samples, instant, gaps[name])
                if said is None and holds[name] > 0:
                    said = value("hold", samples, instant, holds[name])
                column.append(said)
            columns.append(column)
        if any(said is None for column in columns for said in column):
            skipped += 1
        else:
            x = np.array([[v for said in column for v in said] for column in columns], dtype=np.float32).T
            found.append(((k * hop + length - 1) / rate_hz, x))
        k += 1
    return found, skipped
