"""A fleet for training tests: device rows, and agents in a thread that answer tasks as the gateway would deliver them."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import numpy as np
from flwr.app import Context

from fogline_client.training.app import build_app
from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.jobs.doorbell import RUN, Doorbell
from fogline_server.jobs.engine import Engine
from fogline_server.schema import create_all
from fogline_server.training import jobs, offers, service
from fogline_server.training.spec import RunSpec
from fogline_shared import flower, tensors
from fogline_shared.protocol import TaskOffer, TaskReply
from fogline_shared.recipe import load_recipe
from fogline_shared.states import DeviceState

FIRST_NODE = 101
# What a device sends instead of its honest reply: (metrics, arrays) in, the same out.
Tamper = Callable[[dict[str, object], dict[str, np.ndarray]], tuple[dict[str, object], dict[str, np.ndarray]]]


def nan(metrics: dict[str, object], arrays: dict[str, np.ndarray]) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """An update that admission refuses."""
    return metrics, {name: np.full_like(array, np.nan) for name, array in arrays.items()}


def device_id(index: int) -> str:
    return f"dev_{index}"


def add_devices(
    db: Database, count: int, *, recipe: str = "tiny", tags: tuple[str, ...] = (), nodes: Sequence[int] | None = None
) -> None:
    """Active devices that are online for a day; node ids from FIRST_NODE, or as given."""
    now = datetime.now(UTC)
    nodes = nodes or range(FIRST_NODE, FIRST_NODE + count)
    with db.transaction() as session:
        for index in range(count):
            session.add(
                Device(
                    id=device_id(index),
                    name=f"device-{index}",
                    node_id=nodes[index],
                    state=DeviceState.ACTIVE,
                    tags=list(tags),
                    attributes={},
                    recipes=[recipe],
                    lease_until=now + timedelta(days=1),
                    created_at=now,
                )
            )


def create_run(db: Database, **spec: object) -> tuple[str, str]:
    """A run over the tiny recipe; its id and its job's."""
    with db.transaction() as session:
        run = service.create_run(session, RunSpec(**{"recipe": "tiny", **spec}), now=utc_now())
        assert run.job_id is not None
        return run.id, run.job_id


def engine(db: Database, blobs: BlobStore, doorbell: Doorbell, *, lease_s: float = 30) -> Engine:
    kinds = {kind.name: kind for kind in jobs.KINDS}
    return Engine(db, blobs, doorbell, kinds=kinds, lease_s=lease_s, ring=lambda *_: None, retry_base_s=0.05)


class Agents:
    """Use as a context manager. ``tamper``: by device index. ``silent``: indices that never answer. ``nodes``: their ids.

    ``lag``: by device index, so many rounds must have been opened since its training task's before it answers.
    """

    def __init__(
        self,
        db: Database,
        blobs: BlobStore,
        doorbell: Doorbell,
        count: int,
        *,
        tamper: dict[int, Tamper] | None = None,
        silent: tuple[int, ...] = (),
        pause_s: float = 0.0,
        nodes: Sequence[int] | None = None,
        lag: Mapping[int, int] | None = None,
    ) -> None:
        self._lag = lag or {}
        self._db, self._blobs, self._doorbell = db, blobs, doorbell
        self._tamper, self._silent, self._pause_s = tamper or {}, silent, pause_s
        recipe = load_recipe("tiny")
        self._apps = [build_app(recipe) for _ in range(count)]
        nodes = nodes or range(FIRST_NODE, FIRST_NODE + count)
        self._contexts = [Context(1, nodes[i], {"seed": str(i)}, flower.RecordDict(), {}) for i in range(count)]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work)
        self.answered: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(0.02):
            for index in range(len(self._apps)):
                if index in self._silent:
                    continue
                for offer in self.offered(index):
                    self._stop.wait(self._pause_s)
                    self.deliver(index, self.reply(index, offer))

    def offered(self, index: int) -> list[TaskOffer]:
        """What the device is to answer now."""
        with self._db.read() as session:
            tasks = offers.open_tasks(session, device_id(index), now=utc_now())
            latest = {task.run_id: service.rounds_of(session, task.run_id)[-1].number for task in tasks}
        lag = self._lag.get(index, 0)
        return [task for task in tasks if task.kind != "train" or latest[task.run_id] >= task.round + lag]

    def reply(self, index: int, offer: TaskOffer) -> TaskReply:
        """The device's answer, its blob stored."""
        address = flower.Address(
            message_id=offer.task_id,
            node_id=offer.node_id,
            group_id=offer.group_id,
            message_type=offer.message_type,
        )
        blobs = {blob.record: self._blobs.path(blob.digest) for blob in offer.blobs}
        content = flower.decode(json.loads(offer.records_json), blobs)
        answer = self._apps[index](flower.instruction(content, address), self._contexts[index]).content
        encoded = flower.encode(answer)
        metrics = encoded.records["metrics"]["values"]
        arrays = {name: array for record in encoded.arrays.values() for name, array in flower.arrays_of(record).items()}
        if index in self._tamper and offer.kind == "train":
            metrics, arrays = self._tamper[index](metrics, arrays)
            encoded.records["metrics"]["values"] = metrics
        if not arrays:
            return TaskReply(task_id=offer.task_id, digest="", size=0, records_json=json.dumps(encoded.records))
        blob = self._blobs.put(tensors.encode(arrays))
        return TaskReply(
            task_id=offer.task_id, digest=blob.digest, size=blob.size, records_json=json.dumps(encoded.records)
        )

    def deliver(self, index: int, reply: TaskReply) -> bool:
        with self._db.transaction() as session:
            duplicate = offers.receive(session, device_id(index), reply, now=utc_now())
            run_id = offers.task_for_upload(session, device_id(index), reply.task_id).run_id
        self._doorbell.ring(RUN + run_id)
        self.answered.append(reply.task_id)
        return duplicate


def main() -> None:
    """``python training_fleet.py DATABASE_URL REDIS_URL BLOB_DIR JOB_ID``: a trainer that a test may kill."""
    database_url, redis_url, blob_dir, job_id = sys.argv[1:]
    db = Database(database_url)
    create_all(db)
    engine(db, BlobStore(Path(blob_dir)), Doorbell(redis_url), lease_s=1.0).execute(job_id)


if __name__ == "__main__":
    main()
