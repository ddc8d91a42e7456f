"""The demo: how long the whole loop takes on this machine, against its limit, and what it showed.

Runs ``fogline demo`` as a user does, in a process of its own, and reads the report it wrote.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Figure, Options, progress

LIMIT_S = 300.0
SHOWN = ("accuracy", "choice", "variants", "rollouts", "batch")


def measure(options: Options) -> list[Figure]:
    """Seconds of the whole demo after installation. There is no smaller demo: ``options.quick`` changes nothing.

    Raises ``RuntimeError`` when the demo does not exit with 0.
    """
    del options
    with tempfile.TemporaryDirectory(prefix="fogline-bench-demo-") as name:
        began = time.perf_counter()
        command = [str(Path(sys.executable).with_name("fogline")), "demo", "--leave", "--reports", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        seconds = time.perf_counter() - began
        if done.returncode != 0:
            raise RuntimeError(f"the demo ended with {done.returncode}:\n{done.stdout}")
        report = json.loads((Path(name) / "report.json").read_text())
    progress(f"the demo took {seconds:.0f} s")
    return [
        Figure(
            name="demo, whole loop",
            unit="s",
            ours=seconds,
            peer=LIMIT_S,
            peer_name="limit",
            target=1.0,
            detail={name: report[name] for name in SHOWN},
        )
    ]
