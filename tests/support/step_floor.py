"""An asynchronous run whose clock, devices and answers a test moves: rows and blobs, without anybody who trains."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
from training_fleet import FIRST_NODE, add_devices, create_run, device_id

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import checkpoint, offers
from fogline_server.training.asynchronous import buffer
from fogline_server.training.asynchronous.grid import AsynchronousGatewayGrid, Step
from fogline_server.training.grid import Parts, Phase
from fogline_server.training.spec import RunSpec
from fogline_server.training.tables import Round, Run, Update
from fogline_server.training.why_not import why_not
from fogline_shared import flower, tensors
from fogline_shared.flower import ConfigRecord, Message, RecordDict
from fogline_shared.protocol import TaskReply
from fogline_shared.states import RoundState, RunState

NOW = datetime.now(UTC)
DEADLINE_S = 100.0


class Free:
    """A lease that nobody disputes."""

    def check(self, _session: object) -> None:
        pass


class Floor:
    """A run over four devices, whose clock and whose devices the test moves; itself the waiter of its grids."""

    def __init__(self, db: Database, blobs: BlobStore, doorbell: Doorbell, **spec: object) -> None:
        self.db, self.blobs, self.doorbell, self.now = db, blobs, doorbell, NOW
        add_devices(db, 4)
        options = {"buffer_size": 2, "max_staleness": 2}
        self.run_id, _ = create_run(db, strategy="fedbuff", strategy_options=options, min_devices=1, **spec)
        with db.transaction() as session:
            run = session.get_one(Run, self.run_id)
            run.state = RunState.RUNNING
            run.statistics = {"mean": [0.0] * 6, "scale": [1.0] * 6, "samples": {}}
            self.spec = RunSpec.from_json(run.spec)
        self.versions: dict[int, str] = {}
        self.said: list[tuple[int, int]] = []
        self.while_waiting: Iterator[object] = iter(())

    def wait(self, _timeout_s: float) -> None:
        if next(self.while_waiting, self) is self:
            raise RuntimeError("the trainer died while it waited")

    def open(self, number: int) -> AsynchronousGatewayGrid:
        """The grid of a step, opened with the devices that are free; a step that is open is gone on with."""
        with self.db.transaction() as session:
            row = checkpoint.open_round(session, self.run_id, number)
            if row is None:
                cohort = checkpoint.choose_cohort(session, self.run_id, self.spec, number, now=self.now)
                assert not isinstance(cohort, int)
                row = Round(run_id=self.run_id, number=number, state=RoundState.OPEN, metrics={}, attempts=[])
                row.cohort, row.started_at = [device.id for device in cohort.devices], self.now
                session.add(row)
            nodes, opened_at = checkpoint.nodes_of(session, row.cohort), row.started_at
        arrays = {"w": np.full(2, float(number), np.float32)}
        self.versions.setdefault(number, self.blobs.put(tensors.encode(arrays)).digest)
        phase = Phase(
            run_id=self.run_id,
            recipe="tiny",
            round=number,
            kind="train",
            nodes=nodes,
            quorum=0.5,
            deadline_s=DEADLINE_S,
            max_reply_bytes=10_000,
        )
        parts = Parts(
            db=self.db,
            blobs=self.blobs,
            doorbell=self.doorbell,
            waiter=self,
            lease=Free(),
            on_wait=lambda *said: self.said.append(said),
            clock=lambda: self.now,
        )
        step = Step(
            version=self.versions[number],
            running=(),
            size=2,
            max_staleness=2,
            needed=1,
            opened_at=opened_at,
            refill=lambda session: checkpoint.refill(session, self.run_id, self.spec, number, now=self.now),
        )
        return AsynchronousGatewayGrid(phase, parts, step)

    def step(self, grid: AsynchronousGatewayGrid, while_waiting: Iterator[object] | None = None) -> list[Message]:
        """What a step takes; ``while_waiting``: one thing happens whenever it waits."""
        self.while_waiting = while_waiting or iter(())
        number = grid._phase.round
        arrays = flower.read_arrays(self.blobs.path(self.versions[number]))
        content = RecordDict({"arrays": arrays, "config": ConfigRecord({"round": number})})
        return grid.send_and_receive(
            [grid.create_message(content, "train", node, str(number)) for node in grid.get_node_ids()]
        )

    def close(self, number: int) -> None:
        with self.db.transaction() as session:
            for update, _ in buffer.taken(session, self.run_id, number):
                update.verdict = "ACCEPTED"
            session.get_one(Round, (self.run_id, number)).state = RoundState.COMMITTED

    def answer(self, index: int, number: int, value: float = 0.0, **failed: str) -> None:
        """The device's reply to its task of a round: ``value`` added to the version it was sent."""
        blob = self.blobs.put(tensors.encode({"w": np.full(2, number + value, np.float32)}))
        content = RecordDict({"arrays": flower.read_arrays(self.blobs.path(blob.digest))})
        records = flower.encode(content).records
        task = f"{self.run_id}-{number}-train-{FIRST_NODE + index}"
        reply = TaskReply(task_id=task, digest=blob.digest, size=blob.size, records_json=json.dumps(records), **failed)
        self.now += timedelta(seconds=1)
        with self.db.transaction() as session:
            offers.receive(session, device_id(index), reply, now=self.now)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def row(self, index: int, number: int) -> Update:
        with self.db.read() as session:
            return session.get_one(Update, f"{self.run_id}-{number}-train-{FIRST_NODE + index}")

    def asked(self, number: int) -> list[int]:
        with self.db.read() as session:
            cohort = session.get_one(Round, (self.run_id, number)).cohort
        return [int(device.removeprefix("dev_")) for device in cohort]

    def notes(self, index: int) -> tuple[bool, list[str]]:
        with self.db.read() as session:
            told = why_not(session, device_id(index), self.run_id, now=self.now)
        return told.taking_part, list(told.notes)
