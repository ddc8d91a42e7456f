"""A run whose devices lie, on the way that all replies take: gateway, grid, admission, strategy."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import honest_replies
import numpy as np
import pytest
from flwr.serverapp.strategy import FedAvg
from honest_replies import ENROLLED, RUNNING, Honest, Sent
from malformed import FAULTS, Fault
from sqlalchemy import select
from sqlalchemy.exc import DataError
from training_fleet import add_devices, create_run, device_id

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.devices.authority import CertificateAuthority
from fogline_server.devices.tables import Device
from fogline_server.gateway.parts import GatewayOptions
from fogline_server.gateway.parts import Parts as GatewayParts
from fogline_server.gateway.status import as_known
from fogline_server.gateway.transfer import Transfer, UploadPart
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import checkpoint, grid, offers, rounds
from fogline_server.training.checkpoint import RoundEnd
from fogline_server.training.grid import GatewayGrid
from fogline_server.training.grid import Phase as GridPhase
from fogline_server.training.statistics import Statistics
from fogline_server.training.strategies.base import EVERY_NODE
from fogline_server.training.tables import Round, Run, Task, Update
from fogline_shared import flower
from fogline_shared.codecs import base as codecs
from fogline_shared.errors import FoglineError
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.protocol import TaskReply
from fogline_shared.recipe import Standardisation, TrainPlan
from fogline_shared.states import RoundState, RunState, UpdateVerdict
from fogline_shared.wire import reply_to_pb

# More honest devices than liars whose arrays are in order but for their size: these are judged by what most sent.
HONEST = 40
CODECS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("none", {}),
    ("int8", {}),
    ("none", {}),
    ("topk", {"fraction": 0.1}),
    ("fp16", {}),
    ("eden", {}),
)


class Recording(FedAvg):
    """FedAvg that keeps what reaches it."""

    def __init__(self) -> None:
        super().__init__(**EVERY_NODE)
        self.reached: dict[int, tuple[dict[str, np.ndarray], dict[str, Any]]] = {}

    def aggregate_train(self, server_round, replies):
        replies = list(replies)
        for reply in replies:
            arrays = flower.arrays_of(reply.content["arrays"])
            assert reply.metadata.src_node_id not in self.reached, "twice"
            self.reached[reply.metadata.src_node_id] = (arrays, dict(reply.content["metrics"]))
        return super().aggregate_train(server_round, replies)


class NobodyElse:
    """The lease of a test: there is one trainer."""

    job_id, epoch = "", 1

    def check(self, session) -> None: ...

    def progress(self, done, total, message="") -> None: ...


class AnsweredMeanwhile:
    """What a grid waits with: all answers come in while it does."""

    def __init__(self, answer: Callable[[], None]) -> None:
        self._answer = answer

    def wait(self, timeout_s, **_rings: int) -> None:
        self._answer()


@dataclass
class Field:
    """A run whose devices answer as a test says. The first ``HONEST`` devices are honest, the others are not."""

    db: Database
    blobs: BlobStore
    doorbell: Doorbell
    transfer: Transfer
    liars: int
    run_id: str = ""
    number: int = 0
    sent: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    refused_uploads: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        add_devices(self.db, HONEST + self.liars)
        self.run_id, _ = create_run(self.db)
        with self.db.transaction() as session:
            self.nodes = dict(session.execute(select(Device.node_id, Device.id).order_by(Device.node_id)).all())
            session.get_one(Run, self.run_id).state = RunState.RUNNING
        self.node_of = {device: node for node, device in self.nodes.items()}

    def round(self, lies: Sequence[Lie], *, uploaded: int = 0) -> None:
        """One round, in which each liar tells one lie. ``uploaded``: how many lies take the way through ``Upload``."""
        self.number += 1
        name, options = CODECS[self.number % len(CODECS)]
        codec = codecs.load(name, options)
        before = honest_replies.reference(self.number)
        twins = [honest_replies.honest(before, codec, self.number * 1000 + i) for i in range(HONEST)]
        cohort = {self.node_of[device_id(i)]: device_id(i) for i in range(HONEST + len(lies))}
        strategy = Recording()

        phase = GridPhase(
            run_id=self.run_id,
            recipe="tiny",
            round=self.number,
            kind="train",
            nodes=cohort,
            quorum=1.0,
            deadline_s=600.0,
            max_reply_bytes=sum(array.nbytes for array in before.values()) + 64 * 1024,
        )
        parts = grid.Parts(
            db=self.db,
            blobs=self.blobs,
            doorbell=self.doorbell,
            waiter=AnsweredMeanwhile(lambda: self._deliver(twins, lies, uploaded)),
            lease=NobodyElse(),
            on_wait=lambda _answered, _of: None,
        )
        with self.db.transaction() as session:
            session.add(
                Round(
                    run_id=self.run_id,
                    number=self.number,
                    state=RoundState.OPEN,
                    cohort=list(cohort.values()),
                    metrics={},
                    started_at=utc_now(),
                )
            )
        trained = rounds.train(
            GatewayGrid(phase, parts),
            strategy,
            flower.to_record(before),
            self.number,
            size="student",
            plan=TrainPlan(),
            statistics=Statistics(
                standardisation=Standardisation(mean=(0.0,), scale=(1.0,)), samples=dict.fromkeys(cohort, ENROLLED)
            ),
            max_norm_ratio=5.0,
            running=RUNNING,
            codec=codec,
        )
        self.sent += len(lies)
        with self.db.transaction() as session:
            end = RoundEnd(judgements={"train": trained.judgements}, metrics={"loss": trained.loss})
            checkpoint.commit_round(session, NobodyElse(), self.run_id, self.number, end, now=utc_now())
        self._check(strategy, twins, lies, trained)

    def _deliver(self, twins: Sequence[Honest], lies: Sequence[Lie], uploaded: int) -> None:
        tasks, rng = self._tasks(), random.Random(self.number)
        sent = [twin.sent for twin in twins] + [lie.sent(twins) for lie in lies]
        by_upload = range(HONEST, HONEST + uploaded)
        # Lies come first: a device that speaks in another's name must not have been heard.
        asyncio.run(self._upload_all(rng, tasks, sent, by_upload))
        replies = [
            (i, self._reply(task, reply))
            for i, (task, reply) in enumerate(zip(tasks, sent, strict=True))
            if i not in by_upload
        ]
        rng.shuffle(replies)
        with self.db.transaction() as session:
            with session.no_autoflush:  # each asks for a task of its own: many rows at once
                for index, reply in replies:
                    assert offers.receive(session, device_id(index), reply, now=utc_now()) is False
            # The same again, and others that come instead of it.
            for (index, reply), (_, foreign) in itertools.pairwise(replies[:150]):
                other = rng.choice([reply, replace(reply, digest=foreign.digest), replace(reply, records_json="{}")])
                assert offers.receive(session, device_id(index), other, now=utc_now()) is True
                self.sent += 1

    def _tasks(self) -> list[str]:
        with self.db.read() as session:
            rows = session.execute(select(Task.device_id, Task.id).where(Task.round == self.number)).all()
        known = dict(rows)
        return [known[device_id(i)] for i in range(len(known))]

    def _reply(self, task_id: str, sent: Sent) -> TaskReply:
        digest = self.blobs.put([sent.blob]).digest if sent.blob else ""
        return TaskReply(task_id=task_id, digest=digest, size=len(sent.blob), records_json=sent.text)

    async def _upload_all(
        self, rng: random.Random, tasks: Sequence[str], sent: Sequence[Sent], by_upload: Sequence[int]
    ) -> None:
        """Now and then uploads that are refused at once; and some lies that are stored."""
        honest = rng.choice(sent[:HONEST])
        if self.number % 5 == 1:
            await self._attack(tasks, honest, rng.choice(tasks[:HONEST]))
        for index in by_upload:
            await self._upload(index, tasks[index], sent[index])

    async def _attack(self, tasks: Sequence[str], honest: Sent, foreign: str) -> None:
        """Another device's id, ids of nobody, bytes that are not what they claim."""
        liar, own = HONEST, tasks[HONEST]
        for task_id in (foreign, tasks[-1] + "0", "", "x" * 5000, "\x00"):
            await self._upload_refused(liar, task_id, honest)
        longer = replace(honest, blob=honest.blob + bytes(128 * 1024))
        for reply, claims in (
            (honest, {"digest": "ab" * 32}),
            (honest, {"digest": "../../keys/ca.key"}),
            (honest, {"size": len(honest.blob) - 1}),
            (honest, {"size": 1 << 40}),
            (longer, {}),
            (longer, {"size": len(honest.blob)}),
        ):
            await self._upload_refused(liar, own, reply, **claims)

    async def _upload_refused(self, index: int, task_id: str, sent: Sent, **claims: Any) -> None:
        with pytest.raises((FoglineError, DataError)) as refused:
            await self._upload(index, task_id, sent, **claims)
        self.refused_uploads[as_known(refused.value).code] += 1
        self.sent += 1

    async def _upload(self, index: int, task_id: str, sent: Sent, **claims: Any) -> None:
        digest = hashlib.sha256(sent.blob).hexdigest() if sent.blob else ""
        fields = {"task_id": task_id, "digest": digest, "size": len(sent.blob), "records_json": sent.text} | claims

        async def messages() -> AsyncIterator[UploadPart]:
            yield reply_to_pb(TaskReply(**fields))
            for start in range(0, len(sent.blob), 50_000):
                yield memoryview(sent.blob)[start : start + 50_000]

        receipt: pb.UploadReceipt = await self.transfer.upload(device_id(index), messages())
        assert not receipt.duplicate

    def _check(
        self, strategy: Recording, twins: Sequence[Honest], lies: Sequence[Lie], trained: rounds.Trained
    ) -> None:
        names = {self.node_of[device_id(i)]: lies[i - HONEST].name for i in range(HONEST, HONEST + len(lies))}
        passed = [names[node] for node in strategy.reached if node in names]
        assert not passed, f"reached the strategy: {passed}"
        assert len(strategy.reached) == HONEST, "an honest twin was refused"
        for index, twin in enumerate(twins):
            arrays, metrics = strategy.reached[self.node_of[device_id(index)]]
            assert metrics == {"num-examples": twin.metrics["num-examples"], "loss": twin.metrics["loss"]}
            for name, meant in twin.means.items():
                assert arrays[name].dtype == meant.dtype
                assert arrays[name].tobytes() == meant.tobytes(), name
        assert all(np.isfinite(array).all() for array in flower.arrays_of(trained.arrays).values())
        with self.db.read() as session:
            updates = session.execute(
                select(Task.device_id, Update).join(Update, Update.task_id == Task.id).where(Task.round == self.number)
            ).all()
        assert len(updates) == HONEST + len(lies)
        for device, update in updates:
            accepted = self.node_of[device] not in names
            assert (update.verdict == UpdateVerdict.ACCEPTED) == accepted
            assert bool(update.code and update.reason) != accepted, "a refusal says why"
            self.codes.update([update.code] * (not accepted))


@dataclass(frozen=True, kw_only=True)
class Lie:
    """A fault of one of the round's honest replies."""

    name: str
    twin: int
    make: Any

    def sent(self, twins: Sequence[Honest]) -> Sent:
        return self.make(twins[self.twin % len(twins)])


def seeded(rng: random.Random, count: int) -> list[Lie]:
    """The faults in turn, each with chances of its own."""

    def lie(fault: Fault, seed: int) -> Lie:
        return Lie(name=fault.__name__, twin=seed, make=lambda twin: fault(random.Random(seed), twin))

    return [lie(FAULTS[i % len(FAULTS)], rng.getrandbits(48)) for i in range(count)]


@contextmanager
def field_of(db: Database, doorbell: Doorbell, tmp_path: Path, *, liars: int) -> Iterator[Field]:
    """Blobs in memory where there is such a folder: ten thousand times waiting for a disk would test the disk."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    blobs = BlobStore(folder)
    parts = GatewayParts(
        db=db,
        blobs=blobs,
        doorbell=doorbell,
        authority=CertificateAuthority.open(tmp_path / "keys", "127.0.0.1"),
        options=GatewayOptions(idle_s=2.0),
    )
    transfer = Transfer(parts)
    try:
        yield Field(db=db, blobs=blobs, doorbell=doorbell, transfer=transfer, liars=liars)
    finally:
        transfer.close()
        shutil.rmtree(folder)
