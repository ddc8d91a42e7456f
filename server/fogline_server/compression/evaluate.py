"""How good, how large and how fast an artifact is, through the runtime that devices run it with."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fogline_server.compression.engine import FloatArray, open_session, run
from fogline_shared.errors import Corrupt
from fogline_shared.recipe import Dataset, Evaluation, LabelArray

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

WARM_UP, REPEATS, TURNS = 20, 200, 4
ZSTD_LEVEL = 19
CALIBRATION_BINS = 15


def evaluate(model: bytes, data: Dataset) -> Evaluation:
    """Accuracy, cross-entropy and confusion of an artifact on raw examples; raises Corrupt ``logits_not_finite``."""
    return score(run(open_session(model), data.x), data.y)


def correct(model: bytes, data: Dataset) -> NDArray[np.bool_]:
    """Which examples an artifact labels right, (n,)."""
    right: NDArray[np.bool_] = run(open_session(model), data.x).argmax(axis=1) == data.y
    return right


def score(logits: FloatArray, y: LabelArray) -> Evaluation:
    """The same from logits (n, classes) and labels (n,)."""
    if not np.isfinite(logits).all():
        raise Corrupt("logits_not_finite", "the model answers real inputs with NaN or infinity")
    classes = logits.shape[1]
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (y, logits.argmax(axis=1)), 1)
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    log_likelihood = wide[np.arange(len(y)), y] - np.log(np.exp(wide).sum(axis=1))
    return Evaluation(
        examples=len(y),
        accuracy=float(np.trace(confusion) / max(1, len(y))),
        loss=float(-log_likelihood.mean()) if len(y) else 0.0,
        confusion=confusion.tolist(),
    )


def calibration_error(logits: FloatArray, y: LabelArray) -> float:
    """Expected calibration error: by how much confidence and accuracy differ, on average over fifteen bins of confidence.

    Guo, Pleiss, Sun, Weinberger, "On calibration of modern neural networks", ICML 2017.
    """
    wide = logits.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    confidence = powers.max(axis=1) / powers.sum(axis=1)
    right = logits.argmax(axis=1) == y
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / max(1, len(y)))


def as_metrics(evaluation: Evaluation) -> dict[str, Any]:
    """For a variant's row and the report. Rounded, so that every database gives back the same number."""
    return {
        "examples": evaluation.examples,
        "accuracy": round(evaluation.accuracy, 6),
        "worst_class_accuracy": round(evaluation.worst_class_accuracy, 6),
        "loss": round(evaluation.loss, 6),
        "confusion": [list(row) for row in evaluation.confusion],
    }


def cost(model: bytes, example: FloatArray) -> dict[str, Any]:
    """Bytes, bytes as sent (zstd), and microseconds at batch 1 on this machine: compare them only within one release."""
    import zstandard

    return {
        "bytes": len(model),
        "bytes_zstd": len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(model)),
        **_latency(open_session(model), example[np.newaxis]),
    }


def latencies(models: Mapping[str, bytes], example: FloatArray) -> dict[str, dict[str, float]]:
    """By name the ``p50_us`` and ``p99_us`` of several models at batch 1, in turns: what disturbs the machine disturbs all."""
    sessions = {name: open_session(model) for name, model in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(TURNS):
        for name, session in sessions.items():
            times[name] += _times(session, example[np.newaxis], REPEATS // TURNS, warm_up=WARM_UP if turn == 0 else 2)
    return {name: _percentiles(each) for name, each in times.items()}


def _latency(session: InferenceSession, x: FloatArray) -> dict[str, float]:
    return _percentiles(_times(session, x, REPEATS, warm_up=WARM_UP))


def _times(session: InferenceSession, x: FloatArray, count: int, *, warm_up: int) -> list[float]:
    feed, output = {session.get_inputs()[0].name: x}, [session.get_outputs()[0].name]
    times = []
    for _ in range(warm_up + count):
        start = time.perf_counter_ns()
        session.run(output, feed)
        times.append((time.perf_counter_ns() - start) / 1000)
    return times[warm_up:]


def _percentiles(times: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(times, (50, 99))
    return {"p50_us": round(float(p50), 1), "p99_us": round(float(p99), 1)}


def agreement(model: bytes, parent: bytes, x: FloatArray) -> float:
    """Share of examples that both models label alike."""
    ours, theirs = run(open_session(model), x), run(open_session(parent), x)
    return float((ours.argmax(axis=1) == theirs.argmax(axis=1)).mean())
