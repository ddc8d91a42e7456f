"""The demo's processes: ``fogline up`` and one ``fogline-agent`` a person, in one folder, stopped together."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fogline_server.children import die_with
from fogline_server.demo.rest import Rest, Row
from fogline_shared.errors import Unavailable

_START_S, _STOP_S = 90, 20
# Short windows and ticks: a person is watching.
_PACE = {"FOGLINE_TELEMETRY_EVERY_S": "1", "FOGLINE_TICK_S": "0.25"}
# Flower's own reports and checks would leave this machine.
_QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


@dataclass(frozen=True, kw_only=True)
class Member:
    """One device to be: its name, what its token says of it, and its agent's options."""

    name: str
    tags: Sequence[str]
    options: Sequence[str]


class Plant:
    """A running coordinator and its agents. Use :func:`running`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.api_key_file = Path()
        self._processes: list[subprocess.Popen[bytes]] = []

    def start_up(self) -> Rest:
        """Start ``fogline up`` and connect; raises Unavailable ``demo_start_failed`` with the end of its log."""
        ready, log = self.folder / "ready.json", self.folder / "up.log"
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "fogline_server.cli.processes", "up", "--auto-ports"]
        env = {**_PACE, "FOGLINE_DATA_ALLOW": str(self.folder.absolute())}
        up = self._start([*command, "--state-dir", str(self.folder / "cloud"), "--ready-file", str(ready)], log, env)
        deadline = time.monotonic() + _START_S
        while not ready.exists():
            if up.poll() is not None or time.monotonic() > deadline:
                raise Unavailable("demo_start_failed", f"`fogline up` did not start; the end of {log}:\n{_tail(log)}")
            time.sleep(0.1)
        facts = json.loads(ready.read_text())
        self.url, self.api_key_file = facts["url"], Path(facts["api_key_file"])
        return Rest(self.url, self.api_key_file.read_text().strip())

    def start_agents(self, rest: Rest, members: Sequence[Member], enrolled: Callable[[], None]) -> None:
        """Enrol every member with a token of its own, then run its agent."""

        def enrol(member: Member) -> None:
            token = rest.post("/v1/enrollment-tokens", {"device_name": member.name, "tags": list(member.tags)})["token"]
            command = [*_agent("enroll"), token, "--name", member.name, *self._state(member), *member.options]
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment({}))
            if done.returncode:
                raise Unavailable("demo_enrolment_failed", f"{member.name}: {done.stderr.strip()}")
            enrolled()

        with ThreadPoolExecutor(max_workers=2) as pool:
            list(pool.map(enrol, members))
        # From this thread: on Linux a child dies with the thread that started it.
        for member in members:
            self._start([*_agent("run"), *self._state(member)], self.folder / f"{member.name}.log", {})

    def status(self, member: Member) -> Row:
        """What ``fogline-agent status`` tells on that device; raises Unavailable ``demo_status_failed``."""
        command = [*_agent("status"), *self._state(member), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment({}))
        if done.returncode:
            raise Unavailable("demo_status_failed", f"{member.name}: {done.stderr.strip()}")
        told: Row = json.loads(done.stdout)
        return told

    def stop(self) -> None:
        """Agents first, then the coordinator; what does not end is killed."""
        for process in reversed(self._processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _STOP_S
        for process in reversed(self._processes):
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _state(self, member: Member) -> list[str]:
        return ["--state-dir", str(self.folder / member.name)]

    def _start(self, command: Sequence[str], log: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=_environment(env),
                # Ctrl-C in the terminal reaches the demo alone, which then stops everything in order.
                start_new_session=True,
                preexec_fn=functools.partial(die_with, os.getpid()),  # noqa: PLW1509 - system calls only
            )
        self._processes.append(process)
        return process


@contextmanager
def running(folder: Path) -> Iterator[Plant]:
    """A plant in ``folder``; everything it started is stopped at the end."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    plant = Plant(folder)
    try:
        yield plant
    finally:
        plant.stop()


def _agent(command: str) -> list[str]:
    return [str(Path(sys.executable).with_name("fogline-agent")), command]


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's, less its own Fogline settings: the demo must not touch another coordinator."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FOGLINE_")}
    return {**kept, **_QUIET, "PYTHONUNBUFFERED": "1", **extra}


def _tail(log: Path, lines: int = 15) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
