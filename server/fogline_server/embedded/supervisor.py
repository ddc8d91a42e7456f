"""Keeps a few child processes running: starts them in order, restarts what dies, stops everything, leaves nothing.

One thread and no event loop, because it forks. Each child leads a process group of its own: a Ctrl-C on the terminal
reaches only the supervisor, and a stop reaches the child's own children too.
"""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from fogline_server.children import die_with, signal_group
from fogline_shared.errors import Unavailable

log = structlog.get_logger()

_LOOK_EVERY_S = 0.1
_BASE_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
# A child that has lived this long is well: its next death is a new trouble.
_WELL_AFTER_S = 30.0
_LARGEST_LOG_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class Program:
    """One child. ``ready`` answers whether it serves; ``stop_with`` asks it to end, within ``grace_s`` seconds.

    ``repair`` is called when it has ended by itself with an error, before its next start: it may remove the cause, and
    answers whether it has removed anything.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Callable[[], bool] = lambda: True
    ready_within_s: float = 60.0
    stop_with: int = signal.SIGTERM
    grace_s: float = 8.0
    repair: Callable[[], bool] = lambda: False


class Supervisor:
    """Runs programs until told to stop. ``changed`` is called whenever the process ids have changed."""

    def __init__(self, programs: Sequence[Program], *, log_dir: Path, changed: Callable[[], None]) -> None:
        self._children = [_Child(program, log_dir) for program in programs]
        self._changed = changed
        self._stop = False

    @property
    def pids(self) -> dict[str, int]:
        """The running children's process ids by name."""
        return {child.program.name: child.pid for child in self._children if child.pid}

    def stop(self) -> None:
        """Have :meth:`run` end; fit for a signal handler."""
        self._stop = True

    def run(self, *, started: Callable[[], None]) -> None:
        """Start all in order, call ``started``, keep them running until :meth:`stop`; then stop all, last first.

        Raises Unavailable ``start_failed`` when one ends, or is not ready in time, before all have been.
        """
        try:
            for child in self._children:
                child.start()
                self._await_ready(child)
            if not self._stop:
                self._changed()
                started()
            while not self._stop:
                changes = [child.look() for child in self._children]
                if any(changes):
                    self._changed()
                time.sleep(_LOOK_EVERY_S)
        finally:
            for child in reversed(self._children):
                child.end()

    def _await_ready(self, child: _Child) -> None:
        program = child.program
        deadline = time.monotonic() + program.ready_within_s
        while not self._stop:
            if (code := child.ended()) is not None:
                if child.repaired(code):
                    child.start()
                    continue
                raise Unavailable(
                    "start_failed", f"{program.name} ended at once (exit code {code}): {child.last_words()}"
                )
            if program.ready():
                return
            if time.monotonic() > deadline:
                raise Unavailable("start_failed", f"{program.name} was not ready within {program.ready_within_s:.0f} s")
            time.sleep(_LOOK_EVERY_S)


class _Child:
    """One program's present process, and when to start the next."""

    def __init__(self, program: Program, log_dir: Path) -> None:
        self.program = program
        self._log = log_dir / f"{program.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._start_at: float | None = None
        self._pause_s = _BASE_PAUSE_S

    @property
    def pid(self) -> int:
        return self._process.pid if self._process and self._process.poll() is None else 0

    def start(self) -> None:
        if self._log.exists() and self._log.stat().st_size > _LARGEST_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self.program.command,
                env={**os.environ, **self.program.env},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=functools.partial(die_with, os.getpid()),  # noqa: PLW1509 - one thread, system calls only
            )
        self._started_at = time.monotonic()
        self._start_at = None
        log.info("child_started", child=self.program.name, pid=self._process.pid)

    def ended(self) -> int | None:
        return self._process.poll() if self._process else None

    def look(self) -> bool:
        """Restart the child when it is dead and its pause is over; return whether its process has changed."""
        now = time.monotonic()
        if self._start_at is not None:
            if now < self._start_at:
                return False
            self.start()
            return True
        if (code := self.ended()) is None:
            return False
        assert self._process is not None
        # Whoever it left behind would hold its ports and its work.
        signal_group(self._process.pid, signal.SIGKILL)
        if now - self._started_at > _WELL_AFTER_S:
            self._pause_s = _BASE_PAUSE_S
        log.warning("child_died", child=self.program.name, exit_code=code, again_in_s=self._pause_s, log=str(self._log))
        self._start_at = now + self._pause_s
        self._pause_s = min(_LONGEST_PAUSE_S, self._pause_s * 2)
        self.repaired(code)
        return True

    def repaired(self, code: int) -> bool:
        """Whether there was something to repair after it had ended with this exit code (negative: killed)."""
        if code <= 0 or not self.program.repair():
            return False
        log.warning("child_repaired", child=self.program.name, why=self.last_words())
        return True

    def end(self) -> None:
        """Ask the child to end, wait, then kill its whole group."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(self.program.stop_with)
            try:
                self._process.wait(self.program.grace_s)
            except subprocess.TimeoutExpired:
                log.warning("child_killed", child=self.program.name, after_s=self.program.grace_s)
        signal_group(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self._log.read_bytes()[-4000:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"
