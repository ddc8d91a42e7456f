"""``fogline up``: a bundled Redis, a coordinator and a worker under one supervisor, in one state folder."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import signal
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import redis

from fogline_server.coordinator import listen
from fogline_server.embedded.redis_server import find_redis, redis_command, set_log_aside
from fogline_server.embedded.supervisor import Program, Supervisor
from fogline_server.settings import Settings
from fogline_shared.errors import Conflict

UP_FILE = "up.json"
_PROCESSES = (sys.executable, "-m", "fogline_server.cli.processes")


def run_up(settings: Settings, *, auto_ports: bool, ready_file: Path | None, say: Callable[[str], None]) -> None:
    """Run everything until SIGINT or SIGTERM; then nothing is left running.

    While it runs, ``up.json`` in the state folder (mode 0600) holds ``url``, ``gateway``, ``enroll``, ``api_key_file``,
    ``pid`` and ``pids``. ``ready_file`` is written once everything serves. Raises Conflict ``already_running``,
    Unavailable ``no_redis_binary``, ``port_in_use``, ``start_failed``.
    """
    state_dir = settings.state_dir.absolute()
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    log_dir = state_dir / "logs"
    log_dir.mkdir(exist_ok=True)
    with only_one(state_dir):
        # Of one that was killed: its process id may be somebody else's by now.
        (state_dir / UP_FILE).unlink(missing_ok=True)
        settings = settings.model_copy(
            update={"state_dir": state_dir, **_data_allow(settings), **_ports(settings, auto=auto_ports)}
        )
        programs = list(_programs(settings))
        supervisor = Supervisor(programs, log_dir=log_dir, changed=lambda: _write_up(settings, supervisor.pids))

        def started() -> None:
            say(f"console and API   {_url(settings)}")
            say(f"admin key         {settings.key_dir / 'admin.key'}")
            say(
                f"devices           {settings.advertised_host}:{settings.gateway_port}, enrolment {settings.enroll_port}"
            )
            say(f"logs              {log_dir}")
            if ready_file is not None:
                _write(ready_file, json.dumps(_facts(settings, supervisor.pids)))

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda *_: supervisor.stop())
        try:
            supervisor.run(started=started)
        finally:
            (state_dir / UP_FILE).unlink(missing_ok=True)


def _programs(settings: Settings) -> Iterator[Program]:
    redis_url = settings.redis_url
    if "redis_url" not in settings.model_fields_set:
        port, password = _free_port(), secrets.token_hex(16)
        redis_url = f"redis://:{password}@127.0.0.1:{port}/0"
        folder = settings.state_dir / "redis"
        yield Program(
            name="redis",
            command=redis_command(find_redis(), port=port, folder=folder, password=password),
            ready=lambda: _redis_answers(redis_url),
            ready_within_s=30,
            repair=lambda: set_log_aside(folder),
        )
    env = {
        "FOGLINE_STATE_DIR": str(settings.state_dir),
        "FOGLINE_DATA_ALLOW": settings.data_allow,
        "FOGLINE_REDIS_URL": redis_url,
        "FOGLINE_HTTP_PORT": str(settings.http_port),
        "FOGLINE_GATEWAY_PORT": str(settings.gateway_port),
        "FOGLINE_ENROLL_PORT": str(settings.enroll_port),
    }
    url = _url(settings)
    yield Program(name="coordinator", command=[*_PROCESSES, "coordinator"], env=env, ready=lambda: _http_answers(url))
    # SIGQUIT drops what runs: a training may last an hour, and its lease brings it back at the next start.
    yield Program(name="worker", command=[*_PROCESSES, "worker"], env=env, stop_with=signal.SIGQUIT, grace_s=5)


@contextmanager
def only_one(state_dir: Path) -> Iterator[None]:
    """Hold the folder's lock; the kernel releases it when this process ends, however it ends.

    Raises Conflict ``already_running``.
    """
    with (state_dir / "up.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict("already_running", f"`fogline up` is already running in {state_dir}") from error
        yield


def _data_allow(settings: Settings) -> dict[str, str]:
    """Unless told otherwise, batch jobs may use the folder one stands in, as any other command here could."""
    here = Path.cwd()
    if "data_allow" in settings.model_fields_set or here == Path(here.anchor) or "," in str(here):
        return {}
    return {"data_allow": str(here)}


def _ports(settings: Settings, *, auto: bool) -> dict[str, int]:
    """The three ports, checked to be free now; chosen by the system for ``auto``."""
    hosts = {
        "http_port": settings.http_host,
        "gateway_port": settings.gateway_host,
        "enroll_port": settings.gateway_host,
    }
    with ExitStack() as held:  # all at once, so that no port is chosen twice
        return {
            name: held.enter_context(listen(host, 0 if auto else getattr(settings, name))).getsockname()[1]
            for name, host in hosts.items()
        }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _url(settings: Settings) -> str:
    host = "127.0.0.1" if settings.http_host in {"0.0.0.0", "::"} else settings.http_host  # noqa: S104 - compared
    return f"http://[{host}]:{settings.http_port}" if ":" in host else f"http://{host}:{settings.http_port}"


def _facts(settings: Settings, pids: dict[str, int]) -> dict[str, object]:
    return {
        "url": _url(settings),
        "gateway": f"{settings.advertised_host}:{settings.gateway_port}",
        "enroll": f"{settings.advertised_host}:{settings.enroll_port}",
        "api_key_file": str(settings.key_dir / "admin.key"),
        "pid": os.getpid(),
        "pids": pids,
    }


def _write_up(settings: Settings, pids: dict[str, int]) -> None:
    _write(settings.state_dir / UP_FILE, json.dumps(_facts(settings, pids), indent=2))


def _write(path: Path, text: str) -> None:
    """Whole or not at all, readable by the owner only."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    Path(name).replace(path)


def _redis_answers(url: str) -> bool:
    try:
        with redis.Redis.from_url(url, socket_timeout=1) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _http_answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310 - our own http URL
            return bool(answer.status == 200)
    except OSError:
        return False
