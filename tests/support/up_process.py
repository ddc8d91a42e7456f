"""``fogline up`` as a real process, for tests that watch it start, restart, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import psutil
from parts import die_with_us, eventually

COMMAND = (sys.executable, "-m", "fogline_server.cli.processes")


def environment(state_dir: Path, **extra: str) -> dict[str, str]:
    """This process's environment without any Fogline setting, but for the state folder and what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FOGLINE_")}
    return kept | {"FOGLINE_STATE_DIR": str(state_dir), "FOGLINE_WORKER_CONCURRENCY": "1"} | extra


class Up:
    """Started by :meth:`start`; always end it with :meth:`kill`."""

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder / "state"
        self.log = folder / "up.log"
        self._seen: dict[int, psutil.Process] = {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, auto_ports: bool = True, **extra: str) -> None:
        ready = self.state_dir.parent / "ready.json"
        ready.unlink(missing_ok=True)
        command = [*COMMAND, "up", *(["--auto-ports"] if auto_ports else []), "--ready-file", str(ready)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=environment(self.state_dir, **extra),
                stdout=log,
                stderr=log,
                preexec_fn=die_with_us,  # noqa: PLW1509
            )
        eventually(lambda: ready.exists() or self._ended(), 60)
        self.remember()

    def facts(self) -> dict:
        return json.loads((self.state_dir / "up.json").read_text())

    def healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.facts()['url']}/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def remember(self) -> None:
        """Note every process below this one, to be looked for later."""
        assert self.process is not None
        for process in psutil.Process(self.process.pid).children(recursive=True):
            self._seen[process.pid] = process

    def left_running(self) -> list[psutil.Process]:
        """Of all processes ever noted, those that still run."""
        return [p for p in self._seen.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        assert self.process is not None
        self.remember()
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(40)

    def kill_supervisor(self) -> None:
        """SIGKILL it alone; returns when everything below it has ended by itself."""
        assert self.process is not None
        self.remember()
        self.process.kill()
        self.process.wait()
        eventually(lambda: self.left_running() == [])

    def kill(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.remember()
            self.process.kill()
            self.process.wait()
        for process in self.left_running():
            process.kill()

    def _ended(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        return False
