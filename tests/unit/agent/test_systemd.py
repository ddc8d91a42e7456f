"""What systemd hears of an agent, over a real socket; and the unit it would start it by."""

from __future__ import annotations

import asyncio
import configparser
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_process import AgentProcess
from artifacts import artifact
from lone_device import LoneDevice
from typer.testing import CliRunner

from fogline_client.cli import app
from fogline_client.systemd.notify import WATCHDOG, Manager
from fogline_client.systemd.unit import Service
from fogline_server.devices.authority import CertificateAuthority


@pytest.fixture
def device(tmp_path: Path) -> LoneDevice:
    authority = CertificateAuthority.open(tmp_path / "keys", "127.0.0.1")
    return LoneDevice.make(tmp_path / "watch-1", authority)


@pytest.fixture(params=["path", "abstract"])
def heard(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """The socket's name as systemd gives it, and its end of it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@fogline-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(name.replace("@", "\0"))
        listener.settimeout(30)
        yield name, listener


def all_heard(listener: socket.socket) -> list[str]:
    listener.setblocking(False)
    lines = []
    while True:
        try:
            lines.append(listener.recv(4096).decode())
        except BlockingIOError:
            return lines


def test_an_agent_says_that_it_is_ready_that_it_lives_and_that_it_stops(
    device: LoneDevice, heard: tuple[str, socket.socket]
) -> None:
    name, listener = heard
    device.install(artifact())
    agent = AgentProcess(device.root, NOTIFY_SOCKET=name, WATCHDOG_USEC="300000")
    agent.start()
    try:
        first = [listener.recv(4096).decode() for _ in range(4)]
        assert sorted(first) == ["READY=1", *[WATCHDOG] * 3]
    finally:
        assert agent.stop() == 0
    assert all_heard(listener)[-1] == "STOPPING=1"


async def test_no_sign_of_life_from_a_loop_that_does_not_turn(heard: tuple[str, socket.socket]) -> None:
    name, listener = heard
    manager = Manager(address=name, watchdog_s=0.03)
    watching = asyncio.create_task(manager.watch())
    await asyncio.sleep(0.1)
    assert len(all_heard(listener)) >= 2
    time.sleep(0.2)  # noqa: ASYNC251 - what must not happen
    assert all_heard(listener) == []
    watching.cancel()


def test_what_the_environment_says_is_taken_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid()), "A": "b"}
    assert Manager.of(environment) == Manager(address="/run/n", watchdog_s=60.0)
    assert environment == {"A": "b"}
    assert Manager.of({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}).watchdog_s == 0.0, "another process is meant"
    assert Manager.of({"NOTIFY_SOCKET": "relative", "WATCHDOG_USEC": "soon"}) == Manager()


def test_a_manager_that_is_gone_harms_nobody(tmp_path: Path) -> None:
    Manager(address=str(tmp_path / "nobody"), watchdog_s=1.0).tell(WATCHDOG)
    Manager().tell(WATCHDOG)


def read(text: str) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None)
    parsed.optionxform = str  # type: ignore[assignment, method-assign]
    parsed.read_string(text)
    return parsed


def test_the_unit_names_this_installation_and_this_folder(device: LoneDevice) -> None:
    device.configure(serve_socket="/run/fogline/agent.sock")
    done = CliRunner().invoke(app, ["unit", "--state-dir", str(device.root), "--user", "fogline"])
    assert done.exit_code == 0
    service = read(done.stdout)["Service"]
    words = service["ExecStart"].split()
    assert Path(words[0]).exists()
    assert words[-3:] == ["run", "--state-dir", str(device.root)]
    assert (service["Type"], service["User"], service["Restart"]) == ("notify", "fogline", "always")
    assert service["ReadWritePaths"].split() == [str(device.root), "/run/fogline"]


def test_odd_paths_are_read_back_as_they_are() -> None:
    odd = Path("/srv/my devices/100 % $sure")
    service = Service(state_dir=odd, user="fogline", command=["/opt/agent", "run", "--state-dir", str(odd)])
    said = read(service.text())["Service"]
    assert said["ExecStart"] == '/opt/agent run --state-dir "/srv/my devices/100 %% $$sure"'
    assert said["ReadWritePaths"] == '"/srv/my devices/100 %% $sure"'


def test_no_unit_for_a_folder_without_a_device(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["unit", "--state-dir", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (2, "")
