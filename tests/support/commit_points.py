"""A federated run that dies at a given commit, by SIGKILL of a real process.

The run's coordinator, trainer, gateway and devices take turns on one thread, so a run makes the same commits each time it is
lived through: they are counted in an undisturbed life, and each later one is told at which of them to die.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Self

from parts import die_with_us
from sqlalchemy import event
from training_fleet import Agents, add_devices, create_run, nan

from fogline_client.training.memory import Memory
from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.jobs import lease, service
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.jobs.engine import Engine
from fogline_server.schema import create_all
from fogline_server.training import jobs
from fogline_server.training.asynchronous import grid as asynchronous_grid
from fogline_shared.flower import RecordDict
from fogline_shared.protocol import TaskOffer, TaskReply
from fogline_shared.states import JOB, JobState

# What the gateway does with a device's reply; anything else is the coordinator's or the trainer's.
GATEWAY = "training_fleet.Agents.deliver"
_LEASE_S = 30.0

Tell = Callable[[list[str]], None]


@dataclass(frozen=True)
class Place:
    """Where a run lives: what outlasts every process. ``lag``: of the first device, as :class:`Agents` have it.

    ``liar``: the device whose updates are NaN.
    """

    database_url: str
    redis_url: str
    folder: str
    devices: int
    lag: int = 0
    liar: int | None = None


@dataclass(frozen=True)
class Death:
    """``before`` or ``after`` the ``nth`` commit (from 1) that ``site`` makes in a life."""

    moment: str
    site: str
    nth: int = 1


@dataclass(frozen=True)
class Life:
    """The sites of its commits, in order, that of its death included; how its process ended: 0 or -9."""

    sites: list[str]
    exit_code: int


class Commits:
    """Names the code that makes each commit of a transaction that may write, and dies at one. ``told`` hears of a death."""

    def __init__(self, db: Database, death: Death | None, told: Tell) -> None:
        self.sites: list[str] = []
        self._death, self._told = death, told
        self._within = False
        event.listen(db.engine, "commit", self._before)
        # A session gives its connection back right after its commit, before the code that asked for it goes on.
        event.listen(db.engine, "checkin", self._after)

    def _before(self, connection: object) -> None:
        # The lease's heartbeat is timed by a thread of its own; what it commits is what `progress` commits here.
        if not _on_main_thread() or connection.get_execution_options().get("read_only"):
            return
        self.sites.append(_site())
        self._die_if_due("before")
        self._within = True

    def _after(self, _connection: object, _record: object) -> None:
        if _on_main_thread() and self._within:
            self._within = False
            self._die_if_due("after")

    def _die_if_due(self, moment: str) -> None:
        site = self.sites[-1]
        if self._death == Death(moment, site, self.sites.count(site)):
            self._told(self.sites)
            os.kill(os.getpid(), signal.SIGKILL)


def _on_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _site() -> str:
    """The innermost function of the product, or of the gateway's stand-in, that is committing."""
    frame = sys._getframe(2)
    while frame is not None:
        module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_qualname
        if f"{module}.{name}" == GATEWAY:
            return GATEWAY
        if module.startswith("fogline_server.") and not module.startswith("fogline_server.db."):
            return f"{module}.{name}"
        frame = frame.f_back
    raise AssertionError("a commit of nobody's")


class Devices(Agents):
    """Agents that answer whenever the trainer waits for them: they are its doorbell's waiter.

    What an agent keeps on disk is there in the next life. ``mortal_gateway``: each reply kills two processes of the gateway,
    one before its commit and one after it, before the device has heard that it is held.
    """

    def __init__(
        self, place: Place, db: Database, blobs: BlobStore, doorbell: Doorbell, *, mortal_gateway: bool
    ) -> None:
        tamper = {} if place.liar is None else {place.liar: nan}
        super().__init__(db, blobs, doorbell, place.devices, lag={0: place.lag}, tamper=tamper)
        self._memories = [Memory(Path(place.folder) / f"memory-{index}") for index in range(place.devices)]
        self._recalled: set[int] = set()
        self._gateway_deaths = ("before", "after") if mortal_gateway else ()

    def wait(self, _timeout_s: float, **_rings: int) -> None:
        for index in range(len(self._apps)):
            for offer in self.offered(index):
                reply = self.reply(index, offer)
                for moment in self._gateway_deaths:
                    self._kill_a_gateway(index, reply, moment)
                self.deliver(index, reply)

    def close(self) -> None:
        """They have no connection to close."""

    def reply(self, index: int, offer: TaskOffer) -> TaskReply:
        context, memory = self._contexts[index], self._memories[index]
        if index not in self._recalled:
            self._recalled.add(index)
            context.state = memory.recall(offer.run_id)
        known = RecordDict(dict(context.state))
        reply = super().reply(index, offer)
        memory.keep(offer.run_id, context.state, known)
        return reply

    def _kill_a_gateway(self, index: int, reply: TaskReply, moment: str) -> None:
        pid = os.fork()
        if pid == 0:
            try:
                self._db = Database(self._db.url)
                Commits(self._db, Death(moment, GATEWAY), lambda _: None)
                self.deliver(index, reply)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code == -signal.SIGKILL, f"the gateway lived on, or failed: {code}"


class TurnTaking(Doorbell):
    """A doorbell whose waiter is the fleet."""

    devices: Devices

    def waiter(self, _channel: str) -> Devices:
        return self.devices


def live(place: Place, job_id: str, *, number: int, death: Death | None, mortal_gateway: bool, told: Tell) -> None:
    """Go on with a job to its end, as a coordinator and a worker that know its rows alone; tell the sites of the commits.

    Each life is a minute later than the last, so that the dead one's lease has run out.
    """
    db, blobs = Database(place.database_url), BlobStore(Path(place.folder) / "blobs")
    doorbell = TurnTaking(place.redis_url)
    commits = Commits(db, death, told)
    doorbell.devices = Devices(place, db, blobs, doorbell, mortal_gateway=mortal_gateway)
    rung: list[str] = []
    engine = Engine(
        db,
        blobs,
        doorbell,
        kinds={kind.name: kind for kind in jobs.KINDS},
        lease_s=_LEASE_S,
        ring=lambda rung_id, *_: rung.append(rung_id),
        ring_again_s=0.0,
        clock=lambda: utc_now() + number * timedelta(seconds=2 * _LEASE_S),
    )
    while not _ended(db, job_id):
        engine.reconcile()
        engine.dispatch()
        while rung:
            engine.execute(rung.pop(0))
    told(commits.sites)


def _ended(db: Database, job_id: str) -> bool:
    with db.read() as session:
        job = service.get_job(session, job_id)
    # A FAILED job could be tried again, so the table does not call it final: nobody does that here.
    assert job.state != JobState.FAILED, job.error
    return JOB.terminal(JobState(job.state))


class Nursery:
    """Starts a process for each life; use as a context manager. torch and flwr are loaded once, and forked from."""

    def __init__(self, redis_url: str) -> None:
        self._command = [sys.executable, __file__, redis_url]

    def __enter__(self) -> Self:
        env = os.environ | {
            "PYTHONPATH": os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
        }
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command,
            stdin=pipe,
            stdout=pipe,
            text=True,
            env=env,
            preexec_fn=die_with_us,  # noqa: PLW1509 - async-signal-safe call only
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def live(
        self, place: Place, job_id: str, *, number: int = 0, death: Death | None = None, mortal_gateway: bool = False
    ) -> Life:
        """Life ``number`` (from 0) of a job, to its end or to its death."""
        order = {"place": asdict(place), "job_id": job_id, "number": number, "death": death and asdict(death)}
        self._process.stdin.write(json.dumps(order | {"mortal_gateway": mortal_gateway}) + "\n")
        self._process.stdin.flush()
        said = [json.loads(self._process.stdout.readline())]
        while not isinstance(said[-1], int):
            said.append(json.loads(self._process.stdout.readline()))
        assert len(said) == 2, f"it ended with {said[-1]} and said nothing: see its standard error"
        return Life(*said)


def _warm_up(redis_url: str) -> None:
    """Live once, on a database of its own: what is loaded and compiled on the way is there when a life is forked."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place(f"sqlite:///{folder}/warm.db", redis_url, folder, devices=1)
        db = Database(place.database_url)
        create_all(db)
        add_devices(db, place.devices)
        _, job_id = create_run(db, rounds=1, min_devices=1, evaluate_every=1, strategy="fedadam")
        live(place, job_id, number=0, death=None, mortal_gateway=False, told=lambda _: None)
        db.dispose()
    gc.collect()
    gc.freeze()


def main() -> None:
    """``python commit_points.py REDIS_URL``: a life a line of standard input; its sites and its exit code, a line each."""
    # Logs go to standard output: out of the answers' way.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Every progress is a commit, and so is every look for devices that have come, however fast the machine is.
    lease._WRITE_EVERY_S = 0.0
    asynchronous_grid._REFILL_EVERY = timedelta()
    _warm_up(sys.argv[1])
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            try:
                order = json.loads(line)
                order["place"] = Place(**order["place"])
                order["death"] = order["death"] and Death(**order["death"])
                live(**order, told=lambda sites: print(json.dumps(sites), file=answers, flush=True))
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)


if __name__ == "__main__":
    main()
