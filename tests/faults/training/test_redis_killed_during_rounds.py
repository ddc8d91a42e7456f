"""Redis killed in one round of a run and back in the next: it only rings, so the run ends with the bytes of any other."""

from __future__ import annotations

from typing import Any

from parts import RedisServer
from training_fleet import Agents, add_devices, create_run, engine

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import service
from fogline_shared.protocol import TaskReply

DEVICES, ROUNDS = 2, 3
SPEC = {"rounds": ROUNDS, "min_devices": DEVICES, "strategy": "fedadam", "codec": "topk", "seed": 3}
# Replies that have come before: one in the first round, after all statistics, and one in the second.
DIES, COMES_BACK = DEVICES + 1, 2 * DEVICES + 1


class Witnesses(Agents):
    """Their replies see Redis die by SIGKILL and come back."""

    redis: RedisServer | None = None

    def deliver(self, index: int, reply: TaskReply) -> bool:
        if self.redis is not None and len(self.answered) == DIES:
            self.redis.kill()
        if self.redis is not None and len(self.answered) == COMES_BACK:
            self.redis.start()
        return super().deliver(index, reply)


def test_redis_dies_in_one_round_and_is_back_in_the_next(
    sqlite_database: Database, blobs: BlobStore, own_redis: RedisServer
) -> None:
    add_devices(sqlite_database, DEVICES)
    parts: dict[str, Any] = {"db": sqlite_database, "blobs": blobs, "doorbell": Doorbell(own_redis.url)}
    ends = []
    for killed in (None, own_redis):
        run_id, job_id = create_run(sqlite_database, **SPEC)
        with Witnesses(**parts, count=DEVICES) as agents:
            agents.redis = killed
            assert engine(**parts).execute(job_id) == "SUCCEEDED"
        assert len(agents.answered) == DEVICES * (1 + ROUNDS)
        with sqlite_database.read() as session:
            updates = service.updates_of(session, run_id)
            ends.append((service.get_run(session, run_id).params_digest, sorted(u.digest for u in updates)))
            assert {(update.verdict, update.duplicates) for update in updates} == {("ACCEPTED", 0)}
    assert ends[0] == ends[1]
