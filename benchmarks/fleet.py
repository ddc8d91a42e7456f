"""A real Fogline on this machine, as its users start it: ``fogline up``, and agents as processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from processes import Processes, processes, wait_for

UP = [sys.executable, "-m", "fogline_server.cli.processes", "up", "--auto-ports"]
AGENT = [Path(sys.executable).with_name("fogline-agent")]
RECIPES = Path(__file__).resolve().parent / "recipes"


@dataclass(kw_only=True)
class Cloud:
    """A running coordinator and worker; ``rest`` speaks to its API as an admin."""

    folder: Path
    group: Processes
    rest: httpx.Client
    env: Mapping[str, str]

    def get(self, path: str) -> dict[str, Any]:
        """``GET /v1…``; raises for anything but success."""
        return _checked(self.rest.get(f"/v1{path}"))

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        """``POST /v1…`` with a JSON body."""
        return _checked(self.rest.post(f"/v1{path}", json=body))

    def import_release(self, name: str, artifact: bytes) -> str:
        """The id of a READY release of this one ONNX file."""
        answer = _checked(self.rest.post("/v1/releases:import", params={"name": name}, content=artifact))
        return str(self.until_ended(f"/releases/{answer['id']}", "READY", timeout_s=120)["id"])

    def until_ended(self, path: str, good: str, *, timeout_s: float, every_s: float = 0.1) -> dict[str, Any]:
        """Poll a resource until its state is ``good``; an end that is not raises RuntimeError with the resource.

        Each look costs the coordinator milliseconds: what is measured meanwhile wants a large ``every_s``.
        """

        def ended() -> dict[str, Any] | None:
            view = self.get(path)
            if view["state"] in {"FAILED", "CANCELED", "ROLLED_BACK", "PAUSED"}:
                raise RuntimeError(f"{path}: {json.dumps(view)}")
            return view if view["state"] == good else None

        return wait_for(f"{path} {good}", ended, timeout_s=timeout_s, every_s=every_s)

    def agent(self, name: str, *options: object) -> tuple[subprocess.Popen[bytes], Path]:
        """Enrol a device and run its agent; returns once it is online, with its process and its folder."""
        token = self.post("/enrollment-tokens", device_name=name)["token"]
        folder = self.folder / name
        enroll = [*AGENT, "enroll", token, "--state-dir", folder, "--name", name, "--port", "-1", *options]
        if self.group.start(f"{name}-enroll", enroll, env=self.env).wait(60):
            raise RuntimeError(f"{name} could not enrol")
        process = self.group.start(name, [*AGENT, "run", "--state-dir", folder], env=self.env)
        wait_for(f"{name} online", lambda: self._online(name), timeout_s=60)
        return process, folder

    def _online(self, name: str) -> bool:
        return any(device["name"] == name and device["online"] for device in self.get("/devices?limit=200")["items"])


@contextlib.contextmanager
def fogline_up(**settings: object) -> Iterator[Cloud]:
    """Start everything in a folder of its own; nothing is left of it afterwards. ``settings`` become FOGLINE_… variables."""
    with tempfile.TemporaryDirectory(prefix="fogline-bench-") as name, processes(Path(name)) as group:
        folder = Path(name)
        path = os.pathsep.join(filter(None, [str(RECIPES), os.environ.get("PYTHONPATH")]))
        env = {"PYTHONPATH": path} | {f"FOGLINE_{key.upper()}": str(value) for key, value in settings.items()}
        ready = folder / "ready.json"
        group.start("up", [*UP, "--state-dir", folder / "cloud", "--ready-file", ready], env=env)
        wait_for("fogline up", ready.exists, timeout_s=120)
        facts = json.loads(ready.read_text())
        key = Path(facts["api_key_file"]).read_text().strip()
        with httpx.Client(base_url=facts["url"], headers={"authorization": f"Bearer {key}"}, timeout=60) as rest:
            yield Cloud(folder=folder, group=group, rest=rest, env=env)


def _checked(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        raise RuntimeError(f"{response.request.method} {response.request.url}: {response.status_code} {response.text}")
    answer: dict[str, Any] = response.json()
    return answer
