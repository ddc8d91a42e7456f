"""Processes of a benchmark: each in a group of its own, logged to a file, all gone at the end whatever happened.

Also of a benchmark that is killed: SIGTERM and Ctrl-C end what was started and what that has started, SIGKILL the former.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar

import psutil

from fogline_server.children import die_with

T = TypeVar("T")
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(kw_only=True)
class Processes:
    """What was started, and where it logs."""

    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, name: str, command: Sequence[object], *, env: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Start one; its output goes to ``<folder>/<name>.log``."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.folder,
                preexec_fn=partial(die_with, os.getpid()),  # noqa: PLW1509 - system calls only
            )
        self.running.append(process)
        return process

    def stop(self) -> None:
        """Ask each group to end, then make it, and whatever left its group (some daemons start sessions of their own)."""
        strays = [child for process in self.running for child in _descendants(process.pid)]
        for process in reversed(self.running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + 10
        for process in self.running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        _kill(strays)

    def cpu_seconds(self, roles: Mapping[str, str]) -> dict[str, float]:
        """CPU seconds so far by role: the first whose text is in a process's command line, else ``other``.

        Of descendants too, and of those that have ended, as far as their parents have waited for them.
        """
        seconds = dict.fromkeys([*roles, "other"], 0.0)
        for own in self.running:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in [psutil.Process(own.pid), *_descendants(own.pid)]:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        command = " ".join(process.cmdline())
                        role = next((role for role, text in roles.items() if text in command), "other")
                        times = process.cpu_times()
                        seconds[role] += times.user + times.system + times.children_user + times.children_system
        return seconds

    def tails(self) -> str:
        """The last lines of every log, for the error that says why there is no figure."""
        parts = []
        for path in sorted(self.folder.glob("*.log")):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            parts.append(f"--- {path.name}\n" + "\n".join(lines))
        return "\n".join(parts)


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[Processes]:
    """A set of processes that ends with the block; an error inside it carries their last words."""
    group = Processes(folder=folder)
    try:
        yield group
    except Exception as error:
        error.add_note(group.tails())
        raise
    finally:
        group.stop()


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Whatever the block starts, by whatever means, ends with it, and SIGTERM and Ctrl-C end the block. Once a process."""
    if sys.platform == "linux":
        # Who loses its parent becomes a child of this process, so that it is found.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _give_up)
    try:
        yield
    finally:
        while left := _descendants(os.getpid()):
            _kill(left)
            psutil.wait_procs(left, timeout=1)


def _give_up(number: int, _frame: FrameType | None) -> None:
    """Kill first: pools and ``with`` blocks on the way out wait for their processes."""
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)
    _kill(_descendants(os.getpid()))
    raise SystemExit(128 + number)


def _kill(found: Sequence[psutil.Process]) -> None:
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()  # psutil compares start times: a reused process id is not hit


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_for(what: str, ready: Callable[[], T | None], *, timeout_s: float, every_s: float = 0.2) -> T:
    """Poll until ``ready`` gives something; raise TimeoutError naming what was waited for."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        found = ready()
        if found:
            return found
        time.sleep(every_s)
    raise TimeoutError(f"{what}: not within {timeout_s:.0f} s")


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def listening(port: int) -> bool:
    """Whether somebody accepts on it."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
