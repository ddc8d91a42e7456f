"""What a model costs beside another: bytes as sent, and time at batch 1 in ONNX Runtime as on a device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import zstandard

from fogline_server.compression.engine import open_session
from fogline_server.compression.evaluate import ZSTD_LEVEL
from fogline_shared.recipe import FloatArray

BLOCKS, RUNS = 40, 50
QUICK_BLOCKS = 4


def sent(model: bytes) -> int:
    """Bytes after zstd."""
    return len(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(model))


def time_ratio(model: bytes, parent: bytes, x: FloatArray, *, quick: bool) -> float:
    """Median time of ``model`` over that of ``parent``, in turns, so that what else the machine does meets both."""
    calls = []
    for each in (model, parent):
        session = open_session(each)
        calls.append(partial(session.run, None, {session.get_inputs()[0].name: x}))
    times: tuple[list[int], list[int]] = ([], [])
    for _ in range(QUICK_BLOCKS if quick else BLOCKS):
        for call, taken in zip(calls, times, strict=True):
            taken.extend(_timed(call))
    ours, theirs = map(statistics.median, times)
    return ours / theirs


def _timed(call: Callable[[], Any]) -> list[int]:
    call()
    times = []
    for _ in range(RUNS):
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    return times
