"""Applies a delta as a device would, in a process that imports no more than a device does, and prints what it cost, as JSON.

``python -m fogline_server.registry.deltas.applying DELTA BASE TARGET``: ``TARGET`` is written.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy  # noqa: F401, ICN001 - a device has it loaded before it applies anything
import zstandard  # noqa: F401 - its code is not what applying a larger file would need more of

from fogline_shared import delta

REPEATS = 9


def main(made: Path, base: Path, target: Path) -> None:
    """The first time counts for memory, all of them for the median of times, beside copies of the result."""
    with made.open("rb") as file:
        header = delta.read_header(file)

    def apply() -> None:
        with made.open("rb") as changes, base.open("rb") as old, target.open("wb") as new:
            delta.apply(changes, old, new, digest=header.target, size=header.target_size)

    def copy() -> None:
        digest = hashlib.sha256()
        with target.open("rb") as old, copied.open("wb") as new:
            while data := old.read(1 << 16):
                digest.update(data)
                new.write(data)

    copied = target.with_name(target.name + ".copy")
    peak = _growth(apply)
    took = {"apply_s": _median(apply), "copy_s": _median(copy), "peak_bytes": peak}
    copied.unlink()
    sys.stdout.write(json.dumps(took))


def _median(work: Callable[[], None]) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _growth(work: Callable[[], None]) -> int | None:
    """Bytes of memory that ``work`` needs at its peak beyond what the process had; None where the system does not tell."""
    try:
        # Linux: the peak begins anew (proc(5)).
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    except OSError:
        work()
        return None
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
