"""The recipe of our fleets on stock Flower: its own SuperLink, SuperNodes and ``flwr run``, as they come."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import tiny_recipe
from left_behind import processes_in
from parts import die_with_us, eventually, free_port
from simulation import simulate

APP = Path(__file__).parents[3] / "deploy" / "flower"
NODES = 2
RUN = {"rounds": 1, "seed": 5, "min_devices": NODES}

pytestmark = pytest.mark.slow

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a command of Flower's in the test's folder; nothing that works there outlives the test."""
    binaries = Path(sys.executable).parent
    env = {name: value for name, value in os.environ.items() if not name.startswith(("FLWR", "FOGLINE"))} | {
        "FLWR_HOME": str(tmp_path / "home"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONPATH": str(Path(tiny_recipe.__file__).parent),
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }

    def run(name: str, *words: object) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            command = [str(binaries / name), *map(str, words)]
            return subprocess.Popen(command, cwd=tmp_path, env=env, stdout=log, stderr=log, preexec_fn=die_with_us)  # noqa: PLW1509

    yield run
    for process in processes_in(tmp_path):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def test_stock_flower_gives_the_bytes_of_our_gateway(tmp_path: Path, start: Start) -> None:
    """That a run in this process gives the gateway's is tested beside this."""
    shutil.copytree(APP, tmp_path / "app")
    port, out = free_port(), tmp_path / "parameters.safetensors"
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "config.toml").write_text(
        f'[superlink]\ndefault = "here"\n\n[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    )
    start("flower-superlink", "--insecure", "--disable-runtime-dependency-installation", "--port", port)
    eventually(lambda: listening(port), 60)
    for seed in range(NODES):
        own = ("--port", free_port(), "--node-config", f'seed="{seed}"')
        start("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", *own)
    config = f'recipe="tiny" rounds={RUN["rounds"]} seed={RUN["seed"]} min-devices={NODES} out="{out}"'

    assert start("flwr", "run", tmp_path / "app", "here", "--run-config", config).wait(60) == 0
    try:
        eventually(out.exists, 150)
    except AssertionError:
        raise AssertionError((tmp_path / "log").read_text()[-4000:]) from None
    assert hashlib.sha256(out.read_bytes()).hexdigest() == simulate(NODES, **RUN)
    assert simulate(NODES, **RUN) != simulate(NODES, **{**RUN, "seed": 6})


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
