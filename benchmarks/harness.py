"""What every benchmark shares: a figure, the table, the results file, and peers in virtual environments of their own.

A figure is a ratio to a peer or to a limit, both measured in the same run on the same machine: absolute times of a shared
machine mean little.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PEERS = Path(__file__).resolve().parent / "peers"
VENVS = Path(__file__).resolve().parent / ".venvs"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """``ratio`` is ours over the peer's (or over the limit); lower is better unless ``higher_is_better``.

    ``spread``: standard deviation of ours, where it is a mean over repetitions.
    """

    name: str
    unit: str
    ours: float
    peer: float
    peer_name: str
    target: float
    higher_is_better: bool = False
    spread: float = 0.0
    detail: dict[str, object] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.ours / self.peer

    @property
    def met(self) -> bool:
        return self.ratio >= self.target if self.higher_is_better else self.ratio <= self.target


@dataclass(frozen=True, kw_only=True)
class Options:
    """``quick``: sizes for trying a benchmark out; its figures mean nothing and are not written."""

    quick: bool = False


def progress(text: str) -> None:
    """One line on stderr: data goes to stdout."""
    print(f"[bench] {text}", file=sys.stderr, flush=True)


def peer_python(name: str) -> Path:
    """The interpreter of the peer's own environment, made from ``peers/<name>.txt`` unless that is there already."""
    requirements = PEERS / f"{name}.txt"
    fingerprint = hashlib.sha256(requirements.read_bytes()).hexdigest()[:12]
    home = VENVS / f"{name}-{fingerprint}"
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        progress(f"installing the peer {name} (once)")
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", requirements]
        subprocess.run(install, check=True)
        (home / "complete").touch()
    return python


def show(figures: Sequence[Figure]) -> None:
    """The table: figure, ours, peer or limit, ratio, target, met."""
    table = Table("figure", "ours", "peer or limit", "ratio", "target", "met")
    for f in figures:
        sign = "≥" if f.higher_is_better else "≤"
        spread = f" ± {f.spread:.2g}" if f.spread else ""
        table.add_row(
            f.name,
            f"{f.ours:.4g}{spread} {f.unit}",
            f"{f.peer:.4g} {f.unit} ({f.peer_name})",
            f"{f.ratio:.4g}",
            f"{sign} {f.target:.4g}",
            "yes" if f.met else "NO",
        )
    # Wide enough for a file or a pipe, where there is no terminal to ask.
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def write(group: str, figures: Sequence[Figure]) -> Path:
    """Write ``results/<group>.json`` with the commit and the machine; returns its path."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{group}.json"
    rows = [asdict(f) | {"ratio": f.ratio, "met": f.met} for f in figures]
    measured = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    result = {"group": group, "measured": measured, "commit": commit(), "machine": machine(), "figures": rows}
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def commit() -> str:
    """The commit measured; ``+changes`` when the tree differs from it."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, object]:
    """What the ratios were measured on."""
    import psutil

    return {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "load_before": [round(load, 2) for load in os.getloadavg()],
    }


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
