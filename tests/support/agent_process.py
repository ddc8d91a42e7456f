"""A real agent in a process of its own, and the coordinator's side of rolling an artifact out to it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
from artifacts import example

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import new_id, utc_now
from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.registry.tables import Release
from fogline_server.rollouts import desired
from fogline_server.rollouts.desired import Target
from fogline_server.rollouts.tables import Assignment, Rollout
from fogline_server.trust import publish
from fogline_server.trust.keys import OnlineKeys
from fogline_server.trust.model import Listed
from fogline_shared.states import AssignmentState, ReleaseState, RolloutState

# No preexec_fn: it makes Popen fork instead of vfork, and a child of a process that runs gRPC may then hang in gRPC's
# fork handlers before it becomes the agent. So the child itself asks to die with us (prctl PR_SET_PDEATHSIG).
_BEFORE = "import ctypes, signal; ctypes.CDLL(None).prctl(1, signal.SIGKILL)"
COMMAND = [sys.executable, "-c", f"{_BEFORE}; from fogline_client.cli import run; run()"]


async def until(condition: Callable[[], object], *, within_s: float = 20.0, every_s: float = 0.02) -> object:
    """Wait for a truth, letting the event loop run; its value."""
    async with asyncio.timeout(within_s):
        while not (value := await asyncio.to_thread(condition)):  # noqa: ASYNC110 - it is another process's truth
            await asyncio.sleep(every_s)
    return value


def agent_cli(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """One command of fogline-agent, to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
    )


class AgentProcess:
    """An enrolled device whose agent may be killed and started again. ``env`` is added to this process's environment."""

    def __init__(self, state_dir: Path, **env: str) -> None:
        self.state_dir = state_dir
        self.env = env
        self.process: subprocess.Popen[bytes] | None = None
        self.log = state_dir.with_name(state_dir.name + ".log")

    @property
    def device_id(self) -> str:
        return json.loads((self.state_dir / "identity.json").read_text())["device_id"]

    def route_through(self, port: int) -> None:
        """Reach the gateway through a proxy on this port."""
        path = self.state_dir / "identity.json"
        raw = json.loads(path.read_text())
        path.write_text(json.dumps({**raw, "gateway_target": f"127.0.0.1:{port}"}))

    def start(self, *arguments: object) -> None:
        (self.state_dir / "status.json").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*COMMAND, "run", "--state-dir", str(self.state_dir), "--port", "0", *map(str, arguments)],
                stdout=log,
                stderr=log,
                env=os.environ | self.env,
            )

    def journal_step(self) -> str:
        """The step of the update under way; empty when there is none."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            attempt = json.loads((self.state_dir / "journal.json").read_text())["attempt"]
            return attempt["step"] if attempt else ""
        return ""

    def kill(self) -> None:
        """SIGKILL: the process, and with it whatever it was in the middle of."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, as an operator would; the exit code."""
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def status(self) -> dict[str, object]:
        """What status.json says; empty while there is none."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads((self.state_dir / "status.json").read_text())
        return {}

    async def serves(self, digest: str, *, within_s: float = 20.0) -> None:
        """Wait until the agent says that it serves this artifact ("" for none)."""
        await until(
            lambda: self.status().get("active_digest") == digest and self.status().get("url"), within_s=within_s
        )

    def ask(self, label: int = 1) -> dict[str, list]:
        """What the local endpoint answers for the example of that label, by output name."""
        x = example(label)
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, *x.shape], "data": x.reshape(-1).tolist()}
        request = urllib.request.Request(
            f"{self.status()['url']}/v2/models/toy/infer",
            data=json.dumps({"inputs": [tensor]}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=5) as response:
            answer = json.load(response)
        return {output["name"]: output["data"] for output in answer["outputs"]}

    @property
    def memory_mb(self) -> float:
        assert self.process
        return psutil.Process(self.process.pid).memory_info().rss / 2**20


class Cloud:
    """Rolls artifacts out to one device by writing what a rollout's tick writes."""

    def __init__(self, db: Database, blobs: BlobStore, keys: OnlineKeys) -> None:
        self._db = db
        self._keys = keys
        self._blobs = blobs

    def publish(self, content: bytes, *, signed: bool = True) -> Target:
        """Store an artifact as a release of one variant, and sign it."""
        blob = self._blobs.put([content])
        release_id = new_id("rel")
        with self._db.transaction() as session:
            session.add(
                Release(
                    id=release_id,
                    name=release_id,
                    recipe="toy",
                    state=ReleaseState.READY,
                    lineage={},
                    report={},
                    created_at=utc_now(),
                )
            )
            listed = Listed(
                release_id=release_id, variant="student_fp32", digest=blob.digest, size=blob.size, recipe="toy"
            )
            publish.publish(session, self._keys, [listed] if signed else [], now=utc_now())
        return Target(release_id=release_id, variant="student_fp32", digest=blob.digest, size=blob.size)

    def roll_out(self, device_id: str, target: Target, *, probation_s: float = 0.3) -> str:
        """Point the device at an artifact; the assignment's id."""
        now, assignment_id, rollout_id = utc_now(), new_id("asg"), new_id("rol")
        with self._db.transaction() as session:
            session.add(
                Rollout(
                    id=rollout_id,
                    release_id=target.release_id,
                    variant=target.variant,
                    artifact_digest=target.digest,
                    artifact_size=target.size,
                    recipe="toy",
                    state=RolloutState.RUNNING,
                    plan={},
                    created_at=now,
                )
            )
            session.flush()
            assignment = Assignment(
                id=assignment_id,
                rollout_id=rollout_id,
                device_id=device_id,
                stage=1,
                state=AssignmentState.OFFERED,
                created_at=now,
                updated_at=now,
            )
            session.add(assignment)
            device = session.get_one(Device, device_id)
            before = desired.point(
                session, device, target, assignment_id=assignment_id, attempt=1, probation_s=probation_s, now=now
            )
            assignment.previous_release_id = before.release_id
            assignment.previous_variant = before.variant
            assignment.previous_digest, assignment.previous_size = before.digest, before.size
        return assignment_id

    def stands(self, assignment_id: str) -> tuple[str, str]:
        """State and code of an assignment."""
        with self._db.read() as session:
            row = session.get_one(Assignment, assignment_id)
            return row.state, row.code

    async def ends(self, assignment_id: str, state: AssignmentState, *, within_s: float = 30.0) -> str:
        """Wait until the assignment is in this state; its code."""
        try:
            await until(lambda: self.stands(assignment_id)[0] == state, within_s=within_s)
        except TimeoutError:
            raise AssertionError(f"{self.stands(assignment_id)} instead of {state}") from None
        return self.stands(assignment_id)[1]

    def online(self, device_id: str) -> bool:
        with self._db.read() as session:
            until_ = session.get_one(Device, device_id).lease_until
            return until_ is not None and until_ > datetime.now(UTC)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
