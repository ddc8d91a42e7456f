"""A benchmark that is killed leaves nothing behind, not even what its processes have started and left to themselves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from parts import die_with_us, eventually

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
# One in a group of its own; a daemon that left that group and its parent; one that waits in a pool; one in the foreground.
PROGRAM = """
import subprocess, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from processes import nothing_left, processes

if __name__ == "__main__":
    wait = [sys.executable, "-c", "import time; time.sleep(600)", sys.argv[2]]
    with nothing_left(), processes(Path(sys.argv[1])) as group, ProcessPoolExecutor(1) as pool:
        group.start("one", wait)
        group.start("leaver", ["sh", "-c", 'setsid "$@" & exit', "sh", *wait])
        pool.submit(subprocess.run, wait)
        subprocess.run(wait)
"""
STARTED = 4


def alive(mark: str) -> list[psutil.Process]:
    """Who bears the mark, but for the benchmark itself."""
    found = psutil.process_iter(["cmdline", "status"])
    marked = (process for process in found if {"-c", mark} <= set(process.info["cmdline"] or ()))
    return [process for process in marked if process.info["status"] != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_killed_benchmark_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    mark = f"mark-{os.getpid()}-{number}"
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    benchmark = subprocess.Popen(
        [sys.executable, program, tmp_path, mark],
        env=os.environ | {"PYTHONPATH": str(BENCHMARKS)},
        stderr=subprocess.DEVNULL,
        preexec_fn=die_with_us,  # noqa: PLW1509 - async-signal-safe call only
    )
    try:
        eventually(lambda: sum(process.name() != "sh" for process in alive(mark)) == STARTED)
        benchmark.send_signal(number)
        assert benchmark.wait(30) == 128 + number
        assert not alive(mark)
    finally:
        for process in alive(mark):
            process.kill()
        benchmark.wait(30)
