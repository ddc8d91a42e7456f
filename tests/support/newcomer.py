"""A newcomer who does what ``docs/recipes.md`` says, to the letter: its files, then its commands in one bash."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FOGLINE = Path(__file__).parents[2]
GUIDE = FOGLINE / "docs" / "recipes.md"


def blocks(language: str) -> list[str]:
    """The guide's fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def files() -> Mapping[str, str]:
    """The guide's files by name, which their first line gives."""
    found = [*blocks("toml"), *blocks("python")]
    return {text.split("\n", 1)[0].removeprefix("# "): text for text in found}


class Newcomer:
    """In a folder of their own, with an environment that has Fogline's dependencies at hand but not Fogline."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "fogline-digits"
        self.folder.mkdir(parents=True)
        (folder / "bin").mkdir()
        (folder / "bin" / "python3").symlink_to(Path(sys._base_executable))
        ports = _free_ports(3)
        names = ("FOGLINE_HTTP_PORT", "FOGLINE_GATEWAY_PORT", "FOGLINE_ENROLL_PORT")
        self._env = {
            "PATH": os.pathsep.join([str(folder / "bin"), "/usr/local/bin", "/usr/bin", "/bin"]),
            "HOME": str(folder),
            "FOGLINE": str(FOGLINE),
            # Builds with what is installed here, and asks no index: the guide's commands stay as they are.
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_NO_INDEX": "1",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            **{name: str(port) for name, port in zip(names, ports, strict=True)},
        }

    @property
    def packages(self) -> Path:
        """Where the new environment installs to."""
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / ".venv" / "lib" / version / "site-packages"

    def write_files(self) -> None:
        for name, text in files().items():
            (self.folder / name).write_text(text)

    def follow(self, *, before_last: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Run the guide's commands, and ``before_last`` of ours before its last block, up to the first that fails."""
        environment, *steps, last = blocks("bash")
        script = "\n".join(["set -euo pipefail", environment, self._lend(), *steps, *before_last, last])
        return self.run("bash", "-c", script, timeout=900)

    def _lend(self) -> str:
        """Commands that let the new environment see the packages of this one: torch is not installed again.

        Only folders are added; the .pth files in them, Fogline's editable installation among them, are not read. The old
        setuptools that venv brings with Python 3.11 would hide the one that torch asks for.
        """
        seen = sorted({path for path in sys.path if path.endswith("site-packages")})
        packages = shlex.quote(str(self.packages))
        return f"rm -rf {packages}/setuptools*; printf '%s\\n' {shlex.join(seen)} > {packages}/dependencies.pth"

    def python(self, *arguments: str) -> str:
        """What a Python of the new environment prints."""
        done = self.run(str(self.folder / ".venv" / "bin" / "python"), *arguments, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def run(self, *command: str, timeout: float) -> subprocess.CompletedProcess[str]:
        output = self.folder.parent / "output"
        with output.open("w") as out, output.with_suffix(".err").open("w") as err:
            # Files, not pipes: an agent that is left behind would hold a pipe open for ever.
            done = subprocess.run(
                command, cwd=self.folder, env=self._env, stdout=out, stderr=err, timeout=timeout, check=False
            )
        return subprocess.CompletedProcess(
            command, done.returncode, output.read_text(), output.with_suffix(".err").read_text()
        )


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports
