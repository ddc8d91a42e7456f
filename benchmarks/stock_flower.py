"""The peer of ``round_overhead``: flower-superlink and flower-supernodes with their defaults, and ``flwr run``."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import PEERS, peer_python
from processes import free_ports, listening, processes, wait_for

QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}


def measure(*, floats: int, tensors: int = 1, rounds: int, nodes: int, timeout_s: float) -> tuple[list[float], float]:
    """How long each round took, the first one included, and the CPU seconds of all of it: a process a message counts."""
    binaries = peer_python("flower").parent
    port, *node_ports = free_ports(1 + nodes)
    with tempfile.TemporaryDirectory(prefix="fogline-bench-") as name, processes(Path(name)) as group:
        folder = Path(name)
        # `subprocess` isolation looks for flwr's own commands on the PATH
        env = QUIET | {"FLWR_HOME": str(folder / "home"), "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin"}
        (folder / "home").mkdir()
        (folder / "home" / "config.toml").write_text(
            f'[superlink]\ndefault = "bench"\n\n[superlink.bench]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        )
        shutil.copytree(PEERS / "flower_app", folder / "app")
        # Without network a runtime installation would fail; it happens once a run and is no part of a round.
        link = [binaries / "flower-superlink", "--insecure", "--disable-runtime-dependency-installation"]
        group.start("superlink", [*link, "--port", port], env=env)
        wait_for("superlink", lambda: listening(port), timeout_s=60)
        for i, own in enumerate(node_ports):
            node = [binaries / "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", own]
            group.start(f"supernode{i}", node, env=env)
        out = folder / "rounds.json"
        config = f'floats={floats} tensors={tensors} rounds={rounds} nodes={nodes} out="{out}"'
        command = [binaries / "flwr", "run", folder / "app", "bench", "--run-config", config]
        started = group.start("run", command, env=env)
        if started.wait(timeout=120):
            raise subprocess.CalledProcessError(started.returncode, command)
        wait_for("stock Flower's rounds", out.exists, timeout_s=timeout_s, every_s=1.0)
        seconds: list[float] = json.loads(out.read_text())
        return seconds, group.cpu_seconds({})["other"]
