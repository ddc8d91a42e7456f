"""``fogline up``: real processes, started, killed, interrupted."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from parts import eventually
from up_process import COMMAND, Up, environment


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    up = Up(tmp_path)
    up.start()
    yield up
    up.kill()


def run(state_dir: Path, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments]
    return subprocess.run(
        command, env=environment(state_dir, **extra), capture_output=True, text=True, timeout=60, check=False
    )


def test_what_dies_is_restarted_and_ctrl_c_leaves_no_process(up: Up) -> None:
    assert up.healthy()
    assert stat.S_IMODE((up.state_dir / "up.json").stat().st_mode) == 0o600
    first = up.facts()["pids"]
    assert set(first) == {"redis", "coordinator", "worker"}
    for pid in first.values():
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: len(up.facts()["pids"]) == 3 and not set(up.facts()["pids"].values()) & set(first.values()), 30)
    eventually(up.healthy, 30)
    assert up.interrupt() == 0
    assert up.left_running() == []
    assert not (up.state_dir / "up.json").exists()


def test_a_killed_supervisor_takes_everything_with_it_and_the_next_one_continues(up: Up) -> None:
    key = (up.state_dir / "keys" / "admin.key").read_text()
    eventually(lambda: up.remember() or len(up.left_running()) >= 4, 30)  # the worker has forked its pool
    assert up.process is not None
    up.process.kill()
    up.process.wait()
    eventually(lambda: up.left_running() == [])
    up.start()
    assert up.healthy()
    assert (up.state_dir / "keys" / "admin.key").read_text() == key


def test_a_second_up_in_the_same_folder_is_refused_and_the_first_goes_on(up: Up) -> None:
    second = run(up.state_dir, "up", "--auto-ports")
    assert (second.returncode, "already_running" in second.stderr) == (5, True)
    assert up.healthy()


@pytest.mark.parametrize("command", ["up", "coordinator"])
@pytest.mark.parametrize("port", ["FOGLINE_HTTP_PORT", "FOGLINE_GATEWAY_PORT"])
def test_a_port_in_use_is_told_with_its_number(tmp_path: Path, command: str, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        free = {"FOGLINE_HTTP_PORT": "0", "FOGLINE_GATEWAY_PORT": "0", "FOGLINE_ENROLL_PORT": "0"}
        done = run(tmp_path, command, **(free | {port: str(number)}))
    assert done.returncode == 3
    assert done.stderr.strip().splitlines()[-1].startswith("error: port_in_use")
    assert str(number) in done.stderr


def test_a_setting_that_is_no_number_is_told_by_its_name(tmp_path: Path) -> None:
    done = run(tmp_path, "coordinator", FOGLINE_HTTP_PORT="eighty")
    assert (done.returncode, "invalid_setting: FOGLINE_HTTP_PORT" in done.stderr) == (2, True)
