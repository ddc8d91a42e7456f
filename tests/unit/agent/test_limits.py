"""What may be used of a machine, as the kernel tells it in both versions of cgroups, and how training steps back."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil

from fogline_client.limits import Limits

MB = 1 << 20
ALL = len(os.sched_getaffinity(0))


def limits(root: Path, cgroup: str, files: dict[str, str]) -> Limits:
    """As a kernel would tell that says so."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return Limits(proc=root / "proc", cgroups=root / "cgroup")


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path) -> None:
    free = limits(tmp_path, "0::/user.slice\n", {"user.slice/cpu.max": "max 100000", "user.slice/memory.max": "max"})
    assert free.cpus() == ALL
    assert free.memory_bytes() == psutil.virtual_memory().total
    assert 0 < free.free_memory_bytes() <= free.memory_bytes()
    nothing = Limits(proc=tmp_path / "none", cgroups=tmp_path / "none")
    assert nothing.cpus() == ALL


def test_the_narrowest_cgroup_above_counts(tmp_path: Path) -> None:
    files = {
        "memory.max": "max",
        "fleet/cpu.max": "50000 100000",
        "fleet/memory.max": str(64 * MB),
        "fleet/memory.current": str(40 * MB),
        "fleet/memory.stat": f"anon 1\ninactive_file {10 * MB}",
        "fleet/agent/cpu.max": "max 100000",
        "fleet/agent/memory.max": str(96 * MB),
        "fleet/agent/memory.current": str(8 * MB),
    }
    narrow = limits(tmp_path, "0::/fleet/agent\n", files)
    assert narrow.cpus() == 1, "half of one is one thread"
    assert narrow.memory_bytes() == 64 * MB
    assert narrow.free_memory_bytes() == 34 * MB, "what files occupy is given up when it is needed"


def test_version_1(tmp_path: Path) -> None:
    lines = "4:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n"
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
        "cpu,cpuacct/docker/abc/cpu.cfs_quota_us": "100000",
        "cpu,cpuacct/docker/abc/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": "9223372036854771712",
        "memory/docker/abc/memory.limit_in_bytes": str(128 * MB),
        "memory/docker/abc/memory.usage_in_bytes": str(100 * MB),
        "memory/docker/abc/memory.stat": f"total_inactive_file {4 * MB}",
    }
    narrow = limits(tmp_path, lines, files)
    assert (narrow.cpus(), narrow.memory_bytes(), narrow.free_memory_bytes()) == (1, 128 * MB, 32 * MB)


def test_a_container_that_cannot_see_where_it_lies(tmp_path: Path) -> None:
    inside = limits(tmp_path, "4:memory:/host/path\n", {"memory/memory.limit_in_bytes": str(77 * MB)})
    assert inside.memory_bytes() == psutil.virtual_memory().total, "a limit without a use is none that can be judged"
    (tmp_path / "cgroup/memory/memory.usage_in_bytes").write_text(str(78 * MB))
    assert (inside.memory_bytes(), inside.free_memory_bytes()) == (77 * MB, 0)


def test_affinity_counts() -> None:
    code = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    code += "; from fogline_client.limits import Limits; print(Limits().cpus())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


def test_training_steps_back_for_everything_else() -> None:
    code = "from fogline_client.training.child import _step_back; _step_back()"
    code += "; import os, psutil; print(os.nice(0), psutil.Process().ionice().ioclass.name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    niceness, disk = done.stdout.split()
    assert int(niceness) == min(os.nice(0) + 10, 19)
    assert disk == "IOPRIO_CLASS_IDLE"
