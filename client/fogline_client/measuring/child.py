"""The process that measures one artifact: ``python -m fogline_client.measuring.child``.

Its first line of input says what and within which limits (:class:`Order`), its one line of output is the figures, or
``{"code": …, "kind": …, "message": …}``. It runs at low priority and limits its own memory and CPU time before it looks at the
artifact, so that a model that loops or allocates without end ends this process and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fogline_shared.errors import Exhausted, FoglineError
from fogline_shared.protocol import Scalar

# Below the model that serves, and below training.
NICE = 10
WARM_UP, RUNS = 20, 300
# Slow models are run less often, down to so many times.
LEAST_RUNS, LONGEST_S = 20, 3.0
# How the allocators of ONNX Runtime, OpenVINO and NumPy say that the limit is reached.
_NO_MEMORY = ("bad_alloc", "bad allocation", "allocate", "MemoryError", "Invalid buffer size")


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to measure: an artifact's place, SHA-256, and the engine. ``memory_bytes``: that much more than is loaded now.

    ``runs``: how often it predicts, if it is quick; slow models do so less often.
    """

    path: str
    digest: str
    engine: str
    options: dict[str, Scalar]
    memory_bytes: int
    cpu_s: float
    runs: int = RUNS


def measure(order: Order) -> dict[str, Any]:
    """The figures this process can tell of; raises what loading and predicting raise, Exhausted ``measuring_out_of_memory``."""
    import numpy as np

    from fogline_client.inference.engines.base import load_engine
    from fogline_client.inference.model import load_model

    engine = load_engine(order.engine, order.options)
    with contextlib.suppress(FoglineError):
        engine.open(b"")  # has the runtime imported, which is no part of what an artifact takes
    _limit(memory_bytes=order.memory_bytes, cpu_s=order.cpu_s)
    started = time.perf_counter()
    model = load_model(Path(order.path), engine, digest=order.digest)
    load_ms = (time.perf_counter() - started) * 1e3
    shape = model.manifest.input_shape
    known = model.manifest.known_answers
    example = known[0].array(shape) if known else np.zeros(shape, dtype=np.float32)
    for _ in range(min(WARM_UP, order.runs) if model.warm_us < LONGEST_S / RUNS * 1e6 else 1):
        model.predict(example)
    times: list[float] = []
    until = time.monotonic() + LONGEST_S
    least = min(LEAST_RUNS, order.runs)
    while len(times) < least or (len(times) < order.runs and time.monotonic() < until):
        start = time.perf_counter_ns()
        model.predict(example)
        times.append((time.perf_counter_ns() - start) / 1e3)
    p50, p99 = np.percentile(times, (50, 99))
    return {
        "p50_us": round(float(p50), 1),
        "p99_us": round(float(p99), 1),
        "load_ms": round(load_ms, 2),
        "memory_bytes": _peak_bytes(),
        "size": model.size,
        "runs": len(times),
    }


def _limit(*, memory_bytes: int, cpu_s: float) -> None:
    """From now on this process gets so much more memory and time, and writes no file.

    The limit is on memory that is written, not on addresses: engines for GPUs reserve more of these than there is memory.
    """
    pages = int(Path("/proc/self/statm").read_text().split()[5])
    memory = pages * resource.getpagesize() + memory_bytes
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    cpu = math.ceil(time.process_time() + cpu_s)
    # Past the first the kernel says why it ends the process, past the second it just does.
    resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 2))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _peak_bytes() -> int:
    """The most this process had resident; ``getrusage`` would count what it was before it became this program."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def answer(order: Order) -> dict[str, Any]:
    """The figures, or an error as it passes the pipe."""
    try:
        return measure(order)
    except FoglineError as error:
        failure = error
    except MemoryError:
        failure = Exhausted("measuring_out_of_memory", "MemoryError")
    if any(sign in failure.message for sign in _NO_MEMORY):
        text = f"the artifact takes more than {order.memory_bytes // 2**20} MiB beside its engine"
        failure = Exhausted("measuring_out_of_memory", text)
    return {"code": failure.code, "kind": str(failure.kind), "message": failure.message[:400]}


def main() -> None:
    """Answer the order in the first line of the standard input."""
    os.nice(NICE)
    order = Order(**json.loads(sys.stdin.buffer.readline()))
    sys.stdout.write(json.dumps(answer(order)) + "\n")


if __name__ == "__main__":
    main()
