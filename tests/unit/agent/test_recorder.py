"""What telemetry counts of predictions."""

from __future__ import annotations

import threading

from fogline_client.inference.values import Observation
from fogline_client.telemetry.recorder import Health, Recorder

A, B = "a" * 64, "b" * 64


def seen(digest: str = A, label: int = 1, **changes) -> Observation:
    return Observation(digest, 120.0, 0.9, label)._replace(**changes)


def test_window_counts_per_artifact_labels_and_errors() -> None:
    recorder = Recorder(now=10.0)
    for observation in (
        seen(truth=1),
        seen(truth=0),
        seen(label=3),
        seen(label=-1, confidence=0.0, error="output_not_finite", truth=1),
        seen(B),
    ):
        recorder.observe(observation)
    first, second = recorder.cut(now=20.0, boot_id="boot")
    assert (first.artifact_digest, first.start, first.end, first.predictions) == (A, 10.0, 20.0, 4)
    assert (first.errors, first.labelled, first.correct) == (1, 3, 1)
    assert first.class_counts == (0, 2, 0, 1)
    assert (first.latency_us.count, first.confidence_pct.count) == (4, 3)
    assert second.artifact_digest == B
    assert recorder.cut(now=30.0, boot_id="boot") == [], "a quiet window is none"


def test_health_outlives_windows() -> None:
    recorder = Recorder(now=0.0)
    recorder.observe(seen())
    recorder.cut(now=1.0, boot_id="boot")
    recorder.observe(seen(error="output_not_finite"))
    assert recorder.health(A) == Health(predictions=2, errors=1)
    assert recorder.health(B) == Health()


def test_threads_lose_no_count() -> None:
    recorder = Recorder(now=0.0)
    threads = [threading.Thread(target=lambda: [recorder.observe(seen()) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    total = 0
    while any(thread.is_alive() for thread in threads):
        total += sum(window.predictions for window in recorder.cut(now=1.0, boot_id="boot"))
    total += sum(window.predictions for window in recorder.cut(now=2.0, boot_id="boot"))
    assert total == 2000


def test_clock_that_is_set_back_ends_no_window_before_it_began() -> None:
    recorder = Recorder(now=1000.0)
    recorder.observe(seen())
    (window,) = recorder.cut(now=400.0, boot_id="boot")
    assert (window.start, window.end, window.predictions) == (400.0, 400.0, 1)
    recorder.observe(seen())
    (after,) = recorder.cut(now=410.0, boot_id="boot")
    assert (after.start, after.end) == (400.0, 410.0)
