"""Takes what a device measured into the database, once."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.telemetry import drift
from fogline_server.telemetry.drift import DriftLimit
from fogline_server.telemetry.tables import Window
from fogline_shared.errors import InvalidInput
from fogline_shared.protocol import TelemetryWindow
from fogline_shared.sketch import BUCKETS, Sketch

# What a double still counts exactly; sums of many windows stay below SQL's 2**63.
_LARGEST = 2**53
_LARGEST_CLASSES = 100_000


def ingest(
    session: Session, device_id: str, window: TelemetryWindow, *, now: datetime, drift_limit: DriftLimit | None = None
) -> bool:
    """Store one window, and what it says of drift with the device; return False when this window was stored before.

    Raises InvalidInput ``invalid_window`` for values no honest device sends, before anything is written.
    """
    _validate(window)
    drift.check(window)
    known = select(Window.id).where(
        Window.device_id == device_id, Window.boot_id == window.boot_id, Window.seq == window.seq
    )
    if session.scalar(known) is not None:
        return False
    session.add(
        Window(
            device_id=device_id,
            boot_id=window.boot_id,
            seq=window.seq,
            artifact_digest=window.artifact_digest,
            start_at=_instant(window.start),
            end_at=_instant(window.end),
            predictions=window.predictions,
            errors=window.errors,
            labelled=window.labelled,
            correct=window.correct,
            confidence_sum=window.confidence_pct.sum,
            confidence_count=window.confidence_pct.count,
            sketches={
                "latency_us": _sketch_json(window.latency_us),
                "confidence_pct": _sketch_json(window.confidence_pct),
                "class_counts": list(window.class_counts),
                **drift.stored(window),
            },
            dropped_windows=window.dropped_windows,
            received_at=now,
        )
    )
    drift.take(session, device_id, window, drift_limit or DriftLimit(), now=now)
    session.flush()
    return True


def _validate(window: TelemetryWindow) -> None:
    digest = window.artifact_digest
    if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
        raise InvalidInput("invalid_window", "a window names its artifact by 64 lower-case hexadecimal digits")
    if not 0 < len(window.boot_id) <= 60 or "\x00" in window.boot_id:
        raise InvalidInput("invalid_window", "a boot id has 1 to 60 characters")
    if window.end < window.start:
        raise InvalidInput("invalid_window", "a window ends after it starts")
    if len(window.class_counts) > _LARGEST_CLASSES:
        raise InvalidInput("invalid_window", f"more than {_LARGEST_CLASSES} classes")
    if not window.correct <= window.labelled <= window.predictions or window.errors > window.predictions:
        raise InvalidInput("invalid_window", "correct <= labelled <= predictions >= errors does not hold")
    counts = (
        window.seq,
        window.predictions,
        window.errors,
        window.correct,
        window.dropped_windows,
        window.drift_inputs,
        *window.class_counts,
        *window.latency_us.counts,
        *window.confidence_pct.counts,
    )
    if not all(0 <= count < _LARGEST for count in counts):
        raise InvalidInput("invalid_window", f"a count is outside [0, {_LARGEST})")
    confidence, latency = window.confidence_pct, window.latency_us
    if {len(confidence.counts), len(latency.counts)} != {BUCKETS}:
        raise InvalidInput("invalid_window", f"a sketch has {BUCKETS} buckets")
    # NaN fails every comparison; sums of many windows must stay finite.
    if not 0.0 <= latency.sum < _LARGEST or latency.count > window.predictions:
        raise InvalidInput("invalid_window", "latencies are microseconds, at most one a prediction")
    if not 0.0 <= confidence.sum <= 100.0 * confidence.count or confidence.count > window.predictions:
        raise InvalidInput("invalid_window", "confidences are percentages, at most one a prediction")


def _instant(unix_s: float) -> datetime:
    try:
        return datetime.fromtimestamp(unix_s, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput("invalid_window", f"{unix_s} is not a time in Unix seconds") from error


def _sketch_json(sketch: Sketch) -> dict[str, Any]:
    return {"counts": sketch.counts, "sum": sketch.sum}
