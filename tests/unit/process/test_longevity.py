"""What ``settle`` is for, seen from outside: in a process of its own, since it cannot be taken back."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, resource, sys
from fogline_shared.longevity import settle

if sys.argv[1] == "settled":
    settle(keep_bytes=64 << 20)
for round in range(12):
    if round == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [bytes(1 << 20) for _ in range(16)]
    del held
print(gc.get_freeze_count() > 1000, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(how: str) -> tuple[str, int]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    frozen, faults = done.stdout.split()
    return frozen, int(faults)


def test_a_settled_process_collects_less_and_asks_the_kernel_for_memory_once() -> None:
    assert run("not")[0] == "False"
    frozen, faults = run("settled")
    assert frozen == "True"
    # Ten rounds of 16 MB are 40,960 pages when each is asked for anew.
    assert faults < 10_000
    assert run("not")[1] > faults
