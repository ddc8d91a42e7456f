"""Tasks: one answer each, kept until it is acknowledged, whatever happens in between."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from fogline_client import durable
from fogline_client.attributes import Facts
from fogline_client.config import AgentConfig
from fogline_client.outbox import Outbox
from fogline_client.tasks import TaskParts, Tasks
from fogline_shared.errors import Conflict, NotFound, Unavailable
from fogline_shared.protocol import BlobRef, TaskOffer, TaskReply

OFFER = TaskOffer(
    task_id="run_1-1-train-7",
    run_id="run_1",
    round=1,
    kind="train",
    recipe="tiny",
    records_json="{}",
    blobs=(BlobRef(record="arrays", digest="a" * 64, size=3),),
    deadline=time.time() + 3600,
    group_id="1",
    message_type="train",
    node_id=7,
    max_reply_bytes=100,
)


class Bench:
    """A device's tasks, with a host that answers b"reply" and a coordinator that may be away."""

    def __init__(self, root: Path, **attributes: object) -> None:
        self.root = root
        self.now = time.time()
        self.records = "{}"
        self.told: list[dict] = []
        self.facts = Facts(
            AgentConfig(name="watch", attributes=attributes), changed=lambda: self.told.append(dict(self.facts.told))
        )
        self.outbox = Outbox(root / "outbox")
        self.fetched: list[str] = []
        self.trained: list[str] = []
        self.uploaded: list[tuple[TaskReply, bytes]] = []
        self.fault: Exception | None = None
        self.hang = False
        parts = TaskParts(
            recipe="tiny",
            facts=self.facts,
            host=self,
            outbox=self.outbox,
            blobs=root / "blobs",
            fetch=self.fetch,
            upload=self.upload,
            measure=self.measure,
            waits=lambda: iter([0.01] * 1000),
            clock=lambda: self.now,
            flush_after_s=0.05,
        )
        self.tasks = Tasks(parts)

    async def fetch(self, digest: str, size: int, target: Path) -> None:
        self.fetched.append(digest)
        target.write_bytes(b"abc")

    async def upload(self, reply: TaskReply, blob: Path | None) -> bool:
        if self.fault is not None:
            raise self.fault
        self.uploaded.append((reply, blob.read_bytes() if blob else b""))
        return False

    async def run(self, offer: TaskOffer, blobs: dict[str, Path]) -> tuple[Path | None, TaskReply]:
        assert {record: path.read_bytes() for record, path in blobs.items()} == {"arrays": b"abc"}
        if self.hang:
            await asyncio.sleep(60)
        self.trained.append(offer.task_id)
        path = self.root / "reply"
        path.write_bytes(b"reply")
        digest = hashlib.sha256(b"reply").hexdigest()
        return path, TaskReply(task_id=offer.task_id, digest=digest, size=5, records_json=self.records)

    async def measure(self, offer: TaskOffer) -> TaskReply:
        if offer.round == 2:
            raise Conflict("battery_low", "the battery is at 3 %")
        return TaskReply(task_id=offer.task_id, digest="", size=0, records_json='{"p50_us": 5}')

    async def close(self) -> None: ...

    async def until(self, condition) -> None:
        running = asyncio.create_task(self.tasks.run())
        try:
            async with asyncio.timeout(5):
                while not condition():  # noqa: ASYNC110 - several conditions, one helper
                    await asyncio.sleep(0.005)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_offer_is_answered_once_and_forgotten_when_acknowledged(bench: Bench) -> None:
    bench.tasks.offer(OFFER)
    bench.tasks.offer(OFFER)
    await bench.until(lambda: bench.uploaded and not bench.tasks.known())
    assert bench.trained == [OFFER.task_id]
    assert [data for _, data in bench.uploaded] == [b"reply"]
    assert list((bench.root / "outbox").iterdir()) == []


@pytest.mark.parametrize(("sent", "asked"), [(b"abc", []), (b"abd", [hashlib.sha256(b"abc").hexdigest()])])
async def test_blob_that_came_with_its_offer_is_not_asked_for_unless_it_is_damaged(
    bench: Bench, sent: bytes, asked: list[str]
) -> None:
    digest = hashlib.sha256(b"abc").hexdigest()
    blob = BlobRef(record="arrays", digest=digest, size=3)
    bench.tasks.offer(replace(OFFER, blobs=(blob,), contents={digest: sent}))
    await bench.until(lambda: bench.uploaded)
    assert (bench.fetched, bench.uploaded[0][1]) == (asked, b"reply")


async def test_reply_survives_a_restart_and_is_not_trained_again(bench: Bench) -> None:
    bench.fault = Unavailable("gateway_unavailable", "…")
    bench.tasks.offer(OFFER)
    await bench.until(bench.outbox.replies)
    again = Bench(bench.root)
    assert again.tasks.known() == [OFFER.task_id]
    again.tasks.offer(OFFER)
    await again.until(lambda: again.uploaded)
    assert (again.trained, again.uploaded[0][1]) == ([], b"reply")


async def test_reply_nobody_wants_is_dropped_and_the_next_one_sent(bench: Bench) -> None:
    bench.fault = NotFound("task_unknown", "…")
    bench.tasks.offer(OFFER)
    await bench.until(lambda: bench.trained and not bench.tasks.known())
    bench.fault = None
    bench.tasks.offer(replace(OFFER, task_id="run_1-2-train-7"))
    await bench.until(lambda: bench.uploaded)
    assert bench.uploaded[0][0].task_id == "run_1-2-train-7"


@pytest.mark.parametrize(
    ("changes", "code"),
    [({"recipe": "other"}, "recipe_not_here"), ({"max_reply_bytes": 4}, "reply_too_large")],
)
async def test_task_that_cannot_be_done_is_answered_with_a_code(bench: Bench, changes: dict, code: str) -> None:
    bench.tasks.offer(replace(OFFER, **changes))
    await bench.until(lambda: bench.uploaded)
    assert bench.uploaded[0][0].error_code == code


async def test_task_past_its_deadline_is_given_up_and_the_next_one_done(bench: Bench) -> None:
    bench.hang = True
    bench.tasks.offer(replace(OFFER, deadline=time.time() + 0.1))
    bench.tasks.offer(replace(OFFER, task_id="over", deadline=time.time() - 1))
    await bench.until(lambda: not bench.tasks.known())
    bench.hang = False
    bench.tasks.offer(replace(OFFER, task_id="next"))
    await bench.until(lambda: bench.uploaded)
    assert bench.trained == ["next"]


async def test_blobs_of_past_rounds_make_room(bench: Bench) -> None:
    (bench.root / "blobs").mkdir()
    (bench.root / "blobs" / ("b" * 64)).write_bytes(b"old")
    bench.tasks.offer(OFFER)
    await bench.until(lambda: bench.uploaded)
    assert [path.name for path in (bench.root / "blobs").iterdir()] == ["a" * 64]


async def test_damaged_reply_is_set_aside(bench: Bench) -> None:
    (bench.root / "outbox" / "x.json").write_text('{"task_id": ')
    assert Bench(bench.root).tasks.known() == []


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: path.write_bytes(bytes(5))]
)
async def test_reply_whose_arrays_a_power_cut_took_is_trained_again(bench: Bench, damage) -> None:
    bench.fault = Unavailable("gateway_unavailable", "…")
    bench.tasks.offer(OFFER)
    await bench.until(bench.outbox.replies)
    (path,) = (bench.root / "outbox").glob("*.blob")
    damage(path)
    again = Bench(bench.root)
    again.tasks.offer(OFFER)
    await again.until(lambda: again.uploaded)
    assert (again.trained, again.uploaded[0][1]) == ([OFFER.task_id], b"reply")


async def test_reply_that_waits_is_flushed_and_one_that_is_taken_is_not(bench: Bench, monkeypatch) -> None:
    flushed: list[str] = []
    real = durable.flush_path
    monkeypatch.setattr(durable, "flush_path", lambda path: (real(path), flushed.append(path.suffix)))

    def refuse_later(condition) -> bool:
        if bench.uploaded and bench.fault is None:
            bench.fault = Unavailable("gateway_unavailable", "…")
            bench.tasks.offer(replace(OFFER, task_id="run_1-2-train-7"))
        return condition()

    bench.tasks.offer(OFFER)
    # They are looked at in order: by the time the second is flushed, the first was passed over.
    await bench.until(lambda: refuse_later(lambda: len(flushed) == 3))
    assert flushed == [".blob", ".json", ""]
    assert [reply.task_id for reply, _ in bench.uploaded] == [OFFER.task_id]


def asking(offer: TaskOffer = OFFER, **conditions: object) -> TaskOffer:
    return replace(offer, eligibility_json=json.dumps(conditions))


async def test_device_that_does_not_meet_the_conditions_refuses_before_it_downloads_anything(tmp_path: Path) -> None:
    bench = Bench(tmp_path, battery_percent=12, charging=False)
    bench.tasks.offer(asking(min_battery_percent=30, charging=True))
    await bench.until(lambda: bench.uploaded)
    (reply, _) = bench.uploaded[0]
    assert (reply.error_code, reply.digest, bench.fetched, bench.trained) == ("not_eligible", "", [], [])
    assert reply.error_message == "this device has a battery at 12 %, asked are 30 %; it is not charging"
    assert [told["battery_percent"] for told in bench.told] == [12], "the coordinator is told what it did not know"


async def test_device_that_meets_the_conditions_trains(tmp_path: Path) -> None:
    bench = Bench(tmp_path, battery_percent=30, charging=True)
    bench.tasks.offer(asking(min_battery_percent=30, charging=True, min_samples=5))
    await bench.until(lambda: bench.uploaded)
    assert (bench.trained, bench.uploaded[0][0].error_code, bench.told) == ([OFFER.task_id], "", [])


async def test_update_of_too_few_samples_is_not_sent_and_the_number_is_told(bench: Bench) -> None:
    bench.records = json.dumps({"metrics": {"kind": "metrics", "values": {"num-examples": 7}}})
    bench.tasks.offer(asking(min_samples=8))
    await bench.until(lambda: bench.uploaded)
    assert (bench.trained, bench.uploaded[0][0].error_code) == ([OFFER.task_id], "not_eligible")
    assert bench.told[0]["samples"] == 7
    bench.tasks.offer(asking(replace(OFFER, task_id="again", round=2), min_samples=8))
    bench.tasks.offer(asking(replace(OFFER, task_id="enough", round=3), min_samples=7))
    await bench.until(lambda: len(bench.uploaded) == 3)
    assert bench.trained == [OFFER.task_id, "enough"], "what is known need not be found out again"


async def test_device_rests_between_two_rounds_and_may_repeat_one(bench: Bench) -> None:
    def offer(task_id: str, number: int, kind: str = "train") -> None:
        bench.tasks.offer(asking(replace(OFFER, task_id=task_id, round=number, kind=kind), min_separation_s=60))

    for task_id, number, kind in (("one", 1, "train"), ("evaluation", 1, "evaluate"), ("one again", 1, "train")):
        offer(task_id, number, kind)
    offer("two", 2)
    await bench.until(lambda: len(bench.uploaded) == 4)
    assert bench.trained == ["one", "evaluation", "one again"]
    assert "trained 0 s ago, asked are 60 s in between" in bench.uploaded[3][0].error_message
    bench.now += 60
    offer("three", 3)
    await bench.until(lambda: len(bench.uploaded) == 5)
    assert bench.trained[-1] == "three"


@pytest.mark.parametrize("text", ["{", '{"phase_of_the_moon": "full"}', '{"min_samples": "7"}'])
async def test_conditions_that_this_agent_does_not_understand_are_refused_not_ignored(bench: Bench, text: str) -> None:
    bench.tasks.offer(replace(OFFER, eligibility_json=text))
    await bench.until(lambda: bench.uploaded)
    assert (bench.trained, bench.uploaded[0][0].error_code) == ([], "invalid_eligibility")


async def test_a_device_that_does_not_train_measures(bench: Bench) -> None:
    bench.tasks = Tasks(replace(bench.tasks._p, host=None, recipe=""))
    offer = replace(OFFER, task_id="measurement_1", kind="measure", recipe="", records_json="{}", blobs=())
    bench.tasks.offer(offer)
    bench.tasks.offer(replace(offer, task_id="measurement_2", round=2))
    bench.tasks.offer(replace(OFFER, task_id="run_1-2"))
    await bench.until(lambda: len(bench.uploaded) == 3)
    measured, refused, trained = (reply for reply, _ in bench.uploaded)
    assert (refused.task_id, refused.error_code) == ("measurement_2", "battery_low")
    assert (measured.task_id, measured.records_json, measured.error_code) == ("measurement_1", '{"p50_us": 5}', "")
    assert trained.error_code == "recipe_not_here"
