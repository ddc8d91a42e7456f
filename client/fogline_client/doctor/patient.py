"""What the checks look at: the device's folder, read without changing it, and what the machine has left."""

from __future__ import annotations

import fcntl
import os
import platform
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from fogline_client import config as settings
from fogline_client import durable, identity
from fogline_client.config import AgentConfig, StateDir
from fogline_client.identity import Identity
from fogline_client.limits import Limits
from fogline_shared.errors import FoglineError


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What the machine has, as of now: Unix seconds, bytes, file system entries. ``uid``: who looks."""

    now: float
    free_bytes: int
    free_files: int
    read_only: bool
    free_memory: int
    arch: str
    bits: int
    python: tuple[int, int]
    uid: int

    @classmethod
    def look(cls, folder: Path) -> Machine:
        """This machine; the disk is the one that ``folder`` lies on."""
        disk = os.statvfs(folder)
        return cls(
            now=time.time(),
            free_bytes=disk.f_bavail * disk.f_frsize,
            # Some file systems (btrfs) count no entries and say 0 of 0.
            free_files=disk.f_favail if disk.f_files else 1 << 30,
            read_only=bool(disk.f_flag & os.ST_RDONLY),
            free_memory=Limits().free_memory_bytes(),
            arch=platform.machine(),
            bits=64 if sys.maxsize > 2**32 else 32,
            python=sys.version_info[:2],
            uid=os.geteuid(),
        )


@dataclass(frozen=True, kw_only=True)
class Patient:
    """One device. What cannot be read is None here, and a finding of the check it belongs to."""

    state: StateDir
    machine: Machine
    # Whether to try the coordinator, and how long for each step.
    network: bool = True
    timeout_s: float = 5.0
    # What the active model may compute for its known answers.
    model_cpu_s: int = 20

    @cached_property
    def identity(self) -> Identity | None:
        """Who it is."""
        with suppress(FoglineError, OSError):
            return identity.load(self.state.identity)
        return None

    @cached_property
    def config(self) -> AgentConfig | None:
        """How its agent is set."""
        with suppress(FoglineError, OSError):
            return settings.load(self.state.config)
        return None

    @cached_property
    def running(self) -> bool:
        """Whether an agent holds the folder's lock. A pid proves little: in a container the next process has the same."""
        lock = self.state.lock
        try:
            # Where the disk is read-only and has no such file, the agent locks the folder.
            file = os.open(lock if lock.exists() else self.state.root, os.O_RDONLY)
        except OSError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        return False

    @cached_property
    def told(self) -> Mapping[str, Any]:
        """What the agent last wrote of itself; empty when it ended in good order, or never ran."""
        with suppress(FoglineError, OSError):
            told = durable.read_json(self.state.status, code="bad_status")
            return told if isinstance(told, dict) else {}
        return {}
