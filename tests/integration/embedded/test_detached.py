"""``fogline up --detach`` and ``fogline down``: what they leave running, and what they say when they cannot."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from left_behind import processes_in
from up_process import COMMAND, environment

Command = Callable[..., subprocess.CompletedProcess[str]]
# What a full `up` is: itself, Redis, coordinator, worker.
PROCESSES = 4


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        output = tmp_path / "err"
        with output.open("w") as err:  # a file: a process that is left behind would hold a pipe open
            done = subprocess.run(
                [*COMMAND, *arguments],
                cwd=tmp_path,
                env=environment(tmp_path / "state", **extra),
                stderr=err,
                timeout=120,
                check=False,
            )
        done.stderr = output.read_text()
        return done

    yield run
    for process in processes_in(tmp_path):
        process.kill()


def test_it_returns_once_everything_serves_and_down_leaves_nothing(command: Command, tmp_path: Path) -> None:
    done = command("up", "--detach", "--auto-ports")
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "state" / "up.json").read_text())
    assert facts["url"] in done.stderr
    assert os.getsid(facts["pid"]) == facts["pid"], "the end of a terminal must not end it"
    assert len(processes_in(tmp_path)) >= PROCESSES
    again = command("up", "--detach", "--auto-ports")
    assert (again.returncode, again.stderr.startswith("error: already_running: ")) == (5, True)
    assert json.loads((tmp_path / "state" / "up.json").read_text())["pid"] == facts["pid"]
    assert command("down").returncode == 0
    assert processes_in(tmp_path) == []
    assert not (tmp_path / "state" / "up.json").exists()


def test_down_without_anything_to_stop_says_so(command: Command, tmp_path: Path) -> None:
    done = command("down")
    assert (done.returncode, done.stderr.startswith("error: not_running: ")) == (4, True)


def test_what_kept_it_from_starting_is_told_by_the_command_itself(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = command("up", "--detach", FOGLINE_HTTP_PORT=str(taken.getsockname()[1]))
    assert done.returncode == 3
    assert done.stderr.startswith("error: start_failed: port_in_use: ")


def test_the_remains_of_a_killed_one_mislead_nobody(command: Command, tmp_path: Path) -> None:
    command("up", "--detach", "--auto-ports")
    pid = json.loads((tmp_path / "state" / "up.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs(processes_in(tmp_path), timeout=20)
    done = command("down")
    assert (done.returncode, done.stderr.startswith("error: not_running: ")) == (4, True)
    assert command("up", "--detach", "--auto-ports").returncode == 0
    assert json.loads((tmp_path / "state" / "up.json").read_text())["pid"] != pid
    assert command("down").returncode == 0
