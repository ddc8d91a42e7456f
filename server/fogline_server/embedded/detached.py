"""``fogline up --detach`` and ``fogline down``: the same supervisor, in the background of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from fogline_server.embedded.up import UP_FILE, only_one
from fogline_shared.errors import Conflict, NotFound, Unavailable

# Longer than the supervisor gives its children to start, and to end.
_START_S, _STOP_S = 200.0, 60.0
_LOOK_EVERY_S = 0.1


def start_detached(state_dir: Path, *, auto_ports: bool) -> Mapping[str, Any]:
    """Return what ``up.json`` holds once everything serves; it outlives this process and its terminal.

    Raises Conflict ``already_running``, Unavailable ``start_failed`` with what the supervisor said last.
    """
    state_dir = state_dir.absolute()
    (state_dir / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
    state_dir.chmod(0o700)
    log, ready = state_dir / "logs" / "up.log", state_dir / UP_FILE
    with only_one(state_dir):  # told here and now, not in a log
        ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "fogline_server.cli.processes", "up", "--state-dir", str(state_dir)]
    command += ["--auto-ports"] if auto_ports else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    deadline = time.monotonic() + _START_S
    while not ready.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            last = [line for line in log.read_text(errors="replace").splitlines() if line.strip()][-1:]
            raise Unavailable("start_failed", f"{''.join(last).removeprefix('error: ') or 'it said nothing'} ({log})")
        time.sleep(_LOOK_EVERY_S)
    facts: dict[str, Any] = json.loads(ready.read_text())
    return facts


def stop(state_dir: Path) -> None:
    """End the ``fogline up`` of that folder, detached or not, and wait until nothing of it is left.

    Raises NotFound ``not_running``, Unavailable ``still_running``.
    """
    if not _runs(state_dir):
        raise NotFound("not_running", f"no `fogline up` runs in {state_dir}")
    deadline = time.monotonic() + _STOP_S
    supervisor: psutil.Process | None = None
    while _runs(state_dir) or (supervisor is not None and _lives(supervisor)):
        if supervisor is None:
            supervisor = _supervisor(state_dir)
            if supervisor is not None:
                with suppress(psutil.NoSuchProcess):
                    supervisor.terminate()
        if time.monotonic() > deadline:
            raise Unavailable("still_running", f"`fogline up` in {state_dir} has not ended within {_STOP_S:.0f} s")
        time.sleep(_LOOK_EVERY_S)


def _runs(state_dir: Path) -> bool:
    if not state_dir.is_dir():
        return False
    try:
        with only_one(state_dir):
            return False
    except Conflict:
        return True


def _supervisor(state_dir: Path) -> psutil.Process | None:
    """The process that runs everything, once it does."""
    try:
        return psutil.Process(int(json.loads((state_dir / UP_FILE).read_text())["pid"]))
    except (OSError, ValueError, KeyError, psutil.NoSuchProcess):
        return None


def _lives(process: psutil.Process) -> bool:
    """It lets go of the folder a moment before it ends; nobody may be there to bury it."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
