"""``fogline up`` with real agents that serve a released model: what a run is killed in, and how one sees that it was whole."""

from __future__ import annotations

import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import onnx
import psutil
from agent_process import AgentProcess, agent_cli
from artifacts import artifact, example
from fault_proxy import ProxyThread
from inference_watch import InferenceWatch
from parts import eventually
from sqlalchemy import select
from tiny_recipe import CHANNELS, LENGTH, Tiny
from up_process import Up

from fogline_server.db.database import Database
from fogline_server.db.events import Event
from fogline_server.demo.rest import Rest
from fogline_server.jobs.tables import Job
from fogline_server.training.tables import Round, Run, Task, Update

SUPPORT = str(Path(__file__).parent)
SHAPE = (CHANNELS, LENGTH)
DEVICES, ROUNDS = 2, 6
# A round takes about a third of a second; each device counts in each round, so every run ends with the same bytes.
RUN = {
    "recipe": "tiny",
    "rounds": ROUNDS,
    "plan": {"epochs": 60},
    "strategy": "fedadam",
    "seed": 3,
    "min_devices": DEVICES,
    "quorum": 1.0,
    "round_deadline_s": 60,
}
_PACE = {"FOGLINE_LEASE_S": "3", "FOGLINE_TICK_S": "0.2", "FOGLINE_TELEMETRY_EVERY_S": "1"}


def padded(content: bytes, size: int) -> bytes:
    """The same artifact with about ``size`` bytes that do not compress."""
    model = onnx.load_from_string(content)
    model.graph.initializer.append(
        onnx.helper.make_tensor("padding", onnx.TensorProto.UINT8, [size], os.urandom(size), raw=True)
    )
    return bytes(model.SerializeToString())


def steady_port() -> int:
    """A free port outside the range the system gives away by itself: ours again after its owner was killed."""
    while True:
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            return int(probe.getsockname()[1])


class LiveFleet:
    """Use :meth:`start` and :meth:`stop`. ``labels``: what each rolled-out artifact calls :attr:`x`, by digest.

    The first agent reaches the gateway through ``proxy``, which may be slow.
    """

    x = example(1, shape=SHAPE)

    def __init__(self, folder: Path, **settings: str) -> None:
        ports = {f"FOGLINE_{name}_PORT": str(steady_port()) for name in ("HTTP", "GATEWAY", "ENROLL")}
        path = os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")])
        self._settings = {**_PACE, **ports, "PYTHONPATH": path, **settings}
        self.up = Up(folder)
        self.agents = [AgentProcess(folder / f"watch-{i}", PYTHONPATH=path) for i in range(DEVICES)]
        self._proxy = ProxyThread(int(ports["FOGLINE_GATEWAY_PORT"]))
        self.proxy = self._proxy.proxy
        self.labels: dict[str, int] = {}
        url = settings.get("FOGLINE_DATABASE_URL", f"sqlite:///{self.up.state_dir / 'fogline.db'}")
        self.db = Database(url)

    def start(self) -> None:
        """Start everything, and roll the first release out to all."""
        self.start_devices()
        self.finish_roll_out(self.begin_roll_out(self.publish("first")))
        for agent in self.agents:
            eventually(lambda agent=agent: agent.status().get("url") and agent.status().get("active_digest"), 60)

    def start_devices(self) -> None:
        """Start everything; the devices serve nothing yet."""
        self._proxy.start()
        self.start_up()
        tokens = [self.rest().post("/v1/enrollment-tokens", {})["token"] for _ in self.agents]
        for number, (agent, token) in enumerate(zip(self.agents, tokens, strict=True)):
            options = ["--name", agent.state_dir.name, "--recipe", "tiny", "--option", f"seed={number}"]
            done = agent_cli(
                "enroll",
                token,
                "--state-dir",
                agent.state_dir,
                *options,
                env={"PYTHONPATH": self._settings["PYTHONPATH"]},
            )
            assert done.returncode == 0, done.stderr
        self.agents[0].route_through(self.proxy.port)
        for agent in self.agents:
            agent.start()

    def start_up(self) -> None:
        """``fogline up``, on the same ports each time."""
        self.up.start(auto_ports=False, **self._settings)

    def stop(self) -> None:
        for agent in self.agents:
            agent.stop()
        self._proxy.stop()
        self.db.dispose()
        if self.up.process is not None:
            self.up.kill()

    def rest(self) -> Rest:
        facts = self.up.facts()
        return Rest(facts["url"], Path(facts["api_key_file"]).read_text().strip())

    def watch(self) -> InferenceWatch:
        return InferenceWatch(self.agents, recipe="tiny", x=self.x, answers=self.labels)

    @property
    def newest(self) -> str:
        """The digest of the artifact that was published last."""
        return list(self.labels)[-1]

    def publish(self, name: str, *, padding: int = 32) -> str:
        """Release an artifact of at least ``padding`` bytes, with an answer of its own for :attr:`x`; the release's id."""
        shift = len(self.labels) % len(Tiny.classes)
        content = padded(artifact(recipe="tiny", shape=SHAPE, classes=Tiny.classes, shift=shift), padding)
        made = self.rest().upload("/v1/releases:import", content, name=name)
        release = self.rest().wait(f"/v1/releases/{made['id']}", timeout_s=120)
        assert release["state"] == "READY", release
        self.labels[release["variants"][0]["digest"]] = (1 + shift) % len(Tiny.classes)
        return release["id"]

    def begin_roll_out(self, release: str) -> str:
        """To all devices at once; the rollout's id."""
        plan = {"stages": [100.0], "gates": [], "soak_s": 0.0, "probation_s": 0.7}
        return self.rest().post("/v1/rollouts", {"release": release, "plan": plan, "start": True})["id"]

    def finish_roll_out(self, rollout: str) -> None:
        ended = self.rest().wait(f"/v1/rollouts/{rollout}", timeout_s=120)
        assert ended["state"] == "SUCCEEDED", ended

    def begin_run(self, **changes: object) -> str:
        return self.rest().post("/v1/runs", {**RUN, **changes})["id"]

    def run_of(self, run_id: str) -> Run:
        with self.db.read() as session:
            return session.get_one(Run, run_id)

    def in_the_middle_of(self, run_id: str, *, after: int = 2) -> None:
        """Wait until ``after`` rounds are committed; at least two are not."""
        eventually(lambda: self.run_of(run_id).rounds_done >= after, 60)
        assert self.run_of(run_id).rounds_done <= ROUNDS - 2, "the run was too fast to be hit in its middle"

    def finish_run(self, run_id: str) -> None:
        eventually(lambda: self.run_of(run_id).finished_at is not None, 180)

    def pids(self) -> dict[str, int]:
        """The processes of ``fogline up`` by name."""
        return self.up.facts()["pids"]

    def kill(self, name: str) -> None:
        """SIGKILL one of the processes of ``fogline up``."""
        os.kill(self.pids()[name], signal.SIGKILL)

    def attempts(self, run_id: str) -> int:
        """How often a worker has taken the run's job."""
        with self.db.read() as session:
            return session.get_one(Job, session.get_one(Run, run_id).job_id).attempts

    def trainer(self, run_id: str) -> psutil.Process:
        """The process of the run's job."""
        with self.db.read() as session:
            owner = session.get_one(Job, session.get_one(Run, run_id).job_id).lease_owner
        assert owner is not None
        return psutil.Process(int(owner.rsplit(":", 1)[1]))

    def check_run(self, run_id: str) -> str:
        """The run is whole: every round once, every device's update once in each, one effect; its parameters' digest."""
        with self.db.read() as session:
            run = session.get_one(Run, run_id)
            assert (run.state, run.rounds_done, run.error) == ("SUCCEEDED", ROUNDS, None)
            rounds = session.scalars(select(Round).where(Round.run_id == run_id).order_by(Round.number)).all()
            assert [(row.number, row.state) for row in rounds] == [(n, "COMMITTED") for n in range(ROUNDS + 1)]
            assert rounds[-1].params_out == run.params_digest
            for before, after in pairwise(rounds[1:]):
                assert after.params_in == before.params_out
            rows = session.execute(select(Task, Update).join(Update).where(Task.run_id == run_id)).all()
            _check_updates(rounds, rows)
            events = session.scalars(select(Event).order_by(Event.seq)).all()
            _check_jobs(session.scalars(select(Job)).all(), events, run)
            assert run.params_digest is not None
            log = (self.up.state_dir / "logs" / "coordinator.log").read_text()
            assert '"level": "error"' not in log, "nothing happened that nobody had foreseen"
            return run.params_digest


def _check_updates(rounds: list[Round], rows: list[tuple[Task, Update]]) -> None:
    tasks = Counter((task.round, task.device_id) for task, _ in rows)
    assert set(tasks.values()) == {1}, "one task a device and round"
    assert len(tasks) == DEVICES * (ROUNDS + 1)
    assert {update.verdict for _, update in rows} == {"ACCEPTED"}
    for row in rounds[1:]:
        metrics = [_metrics(update) for task, update in rows if task.round == row.number]
        samples = sum(each["num-examples"] for each in metrics)
        loss = sum(each["num-examples"] * each["loss"] for each in metrics) / samples
        assert row.metrics["accepted"] == DEVICES
        assert abs(row.metrics["loss"] - loss) < 1e-9, "what the round counted is what each device sent once"


def _metrics(update: Update) -> Mapping[str, float]:
    return update.records["metrics"]["values"]


def _check_jobs(jobs: list[Job], events: list[Event], run: Run) -> None:
    told = Counter((event.kind, event.subject_id) for event in events)
    for job in jobs:
        assert job.state == "SUCCEEDED", (job.id, job.kind, job.state, job.error)
        assert told["job.succeeded", job.id] == 1
        assert told["job.failed", job.id] == 0
        lost = told["job.lease_expired", job.id] + told["job.attempt_failed", job.id]
        back = told["job.given_back", job.id]
        assert job.attempts == job.epoch - back, "an outage of the database is no attempt"
        assert lost <= job.epoch - 1 <= lost + back, "each claim but the last was lost"
    (mine,) = (job for job in jobs if job.kind == "train" and job.spec["run_id"] == run.id)
    assert (mine.id, mine.result) == (run.job_id, {"run_id": run.id, "params_digest": run.params_digest})
    assert told["run.started", run.id] == told["run.succeeded", run.id] == 1
    committed = [e.data["round"] for e in events if (e.kind, e.subject_id) == ("run.round_committed", run.id)]
    assert committed == list(range(ROUNDS + 1)), "each round was committed once, in order"


def training_child(agent: AgentProcess) -> psutil.Process | None:
    """The agent's training process, while there is one."""
    assert agent.process is not None
    children = psutil.Process(agent.process.pid).children()
    return next((child for child in children if "training.child" in " ".join(child.cmdline())), None)
