"""Linux remounts a failing disk read-only: a device goes on predicting, also when it is started anew."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import read_only
from agent_process import _BEFORE
from artifacts import artifact
from lone_device import LoneDevice

from fogline_client import durable
from fogline_client.doctor.patient import Machine, Patient
from fogline_client.lock import only_agent
from fogline_server.devices.authority import CertificateAuthority
from fogline_shared.errors import Conflict, Exhausted

_AGENT = """\
import read_only
from pathlib import Path
from fogline_client.cli import run
read_only.below(Path({root!r}), once=Path({once!r}))
run()
"""


@pytest.fixture
def device(tmp_path: Path) -> LoneDevice:
    device = LoneDevice.make(tmp_path / "watch-1", CertificateAuthority.open(tmp_path / "keys", "127.0.0.1"))
    device.install(artifact())
    return device


@contextmanager
def agent(device: LoneDevice, once: Path) -> Iterator[str]:
    """One that runs; what it is asked at. It must end well."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = once.with_name("log").open("ab")
    code = f"{_BEFORE}\n{_AGENT.format(root=str(device.root), once=str(once))}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "run", "--state-dir", str(device.root), "--port", str(port)],
        stderr=log,
        env=os.environ | {"PYTHONPATH": str(Path(read_only.__file__).parent)},
    )
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < until and not ready(url):
            time.sleep(0.05)
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, once.with_name("log").read_text()
    finally:
        process.kill()
        process.wait()
        log.close()


def ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/v2/health/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def test_a_disk_that_becomes_read_only_and_stays_so(device: LoneDevice, tmp_path: Path) -> None:
    once = tmp_path / "remounted"
    with agent(device, once) as url:
        assert ready(url)
        once.touch()
        time.sleep(1.2)  # the agent compares its status with the file each second
        assert ready(url)
    with agent(device, once) as url:
        assert ready(url)
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("locked_before", [True, False])
def test_one_agent_a_folder_also_where_nothing_can_be_written(
    device: LoneDevice, monkeypatch: pytest.MonkeyPatch, *, locked_before: bool
) -> None:
    if not locked_before:
        device.state.lock.unlink()
    real = os.open

    def refuse(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_CREAT:
            raise OSError(30, os.strerror(30))
        return real(path, flags, *rest)

    monkeypatch.setattr(os, "open", refuse)
    with only_agent(device.state.lock):
        with pytest.raises(Conflict, match="already_running"), only_agent(device.state.lock):
            pass
        assert Patient(state=device.state, machine=Machine.look(device.root)).running
    assert not Patient(state=device.state, machine=Machine.look(device.root)).running
    with pytest.raises(Exhausted, match="disk_read_only"):
        durable.write_json(device.state.config, {})
