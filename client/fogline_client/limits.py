"""What this process may use of the machine: processors by affinity and cgroup, memory by cgroup, both versions.

In a container, or under a systemd slice, it is less than the machine has; who counts by the machine is throttled or killed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

# Version 1 writes "no limit" as the largest multiple of a page below 2⁶³.
_NO_LIMIT = 1 << 60


@dataclass(frozen=True, kw_only=True)
class Limits:
    """``proc`` and ``cgroups``: where the kernel tells; elsewhere in tests."""

    proc: Path = Path("/proc")
    cgroups: Path = Path("/sys/fs/cgroup")

    def cpus(self) -> int:
        """Processors' worth of time, at least 1, rounded up: 1.5 processors keep two threads busy at times."""
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, min([allowed, *map(math.ceil, self._quotas())]))

    def memory_bytes(self) -> int:
        """The most there is for us."""
        return min([int(psutil.virtual_memory().total), *(most for most, _ in self._memory())])

    def free_memory_bytes(self) -> int:
        """What is left of it now."""
        return max(0, min([int(psutil.virtual_memory().available), *(most - used for most, used in self._memory())]))

    def _quotas(self) -> Iterator[float]:
        for folder in self._folders(""):
            with suppress(OSError, ValueError):
                quota, period = (folder / "cpu.max").read_text().split()
                yield int(quota) / int(period)  # "max" is no number
        for folder in self._folders("cpu"):
            with suppress(OSError, ValueError, ZeroDivisionError):
                quota_us = int((folder / "cpu.cfs_quota_us").read_text())
                if quota_us > 0:
                    yield quota_us / int((folder / "cpu.cfs_period_us").read_text())

    def _memory(self) -> Iterator[tuple[int, int]]:
        """Limit and use of each cgroup above us that has a limit."""
        names = {"": ("memory.max", "memory.current"), "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes")}
        for controller, (limit, use) in names.items():
            for folder in self._folders(controller):
                with suppress(OSError, ValueError):
                    if (most := int((folder / limit).read_text())) < _NO_LIMIT:
                        yield most, int((folder / use).read_text()) - _reclaimable(folder)

    def _folders(self, controller: str) -> Iterator[Path]:
        """Our cgroup and those above it, of a version 1 controller, or ("") of version 2."""
        try:
            lines = (self.proc / "self/cgroup").read_text().splitlines()
        except OSError:
            return
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                root = self.cgroups / controllers
                yield root
                # What lies outside our view of the tree (a container's) is not there.
                for part in Path(path.lstrip("/")).parts:
                    root /= part
                    yield root


def _reclaimable(folder: Path) -> int:
    """Pages of files count as used and are given up when memory is needed."""
    with suppress(OSError, ValueError):
        for line in (folder / "memory.stat").read_text().splitlines():
            name, value = line.split()
            if name in {"inactive_file", "total_inactive_file"}:
                return int(value)
    return 0
