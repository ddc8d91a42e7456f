"""What the gateway asks of training, on both databases."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from training_fleet import add_devices, create_run, device_id

from fogline_server.db.database import Database
from fogline_server.devices import service as devices
from fogline_server.training import offers
from fogline_server.training.tables import Run, Task, Update
from fogline_shared.errors import Forbidden, InvalidInput, NotFound
from fogline_shared.protocol import TaskReply
from fogline_shared.states import RunState, UpdateVerdict

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DIGEST = "ab" * 32


@pytest.fixture
def task(database: Database) -> str:
    """One open task of device 0, in a running run."""
    add_devices(database, 2)
    run_id, _ = create_run(database)
    with database.transaction() as session:
        session.get_one(Run, run_id).state = RunState.RUNNING
        session.add(
            Task(
                id=f"{run_id}-1-train-101",
                run_id=run_id,
                round=1,
                kind="train",
                device_id=device_id(0),
                recipe="tiny",
                records={"config": {"kind": "config", "values": {"epochs": 2}}},
                blobs=[{"record": "arrays", "digest": DIGEST, "size": 5}],
                message_type="train",
                group_id="1",
                node_id=101,
                max_reply_bytes=100,
                deadline=NOW + timedelta(seconds=60),
                closed=False,
                created_at=NOW,
            )
        )
    return f"{run_id}-1-train-101"


def reply(task_id: str, **changes: object) -> TaskReply:
    fields = {"digest": DIGEST, "size": 10, "records_json": "{}"} | changes
    return TaskReply(task_id=task_id, **fields)


def receive(database: Database, answer: TaskReply, *, device: int = 0, now: datetime = NOW) -> bool:
    with database.transaction() as session:
        return offers.receive(session, device_id(device), answer, now=now)


def update(database: Database, task_id: str) -> Update:
    with database.read() as session:
        return session.get_one(Update, task_id)


def offered(database: Database, device: int = 0, now: datetime = NOW) -> list[str]:
    with database.read() as session:
        return [offer.task_id for offer in offers.open_tasks(session, device_id(device), now=now)]


def test_open_task_is_offered_to_its_device_until_answered(database: Database, task: str) -> None:
    assert offered(database) == [task] == offered(database)
    assert offered(database, device=1) == []
    assert receive(database, reply(task)) is False
    assert offered(database) == []


def test_offer_carries_what_the_device_needs(database: Database, task: str) -> None:
    with database.read() as session:
        (offer,) = offers.open_tasks(session, device_id(0), now=NOW)
    assert json.loads(offer.records_json)["config"]["values"] == {"epochs": 2}
    assert [(b.record, b.digest) for b in offer.blobs] == [("arrays", DIGEST)]
    assert offer.deadline == (NOW + timedelta(seconds=60)).timestamp()
    assert (offer.node_id, offer.task_id) == (101, task)


def test_task_past_its_deadline_or_of_an_ended_run_is_not_offered(database: Database, task: str) -> None:
    assert offered(database, now=NOW + timedelta(seconds=61)) == []
    with database.transaction() as session:
        session.get_one(Run, session.get_one(Task, task).run_id).state = RunState.CANCELED
    assert offered(database) == []


def test_second_reply_is_a_duplicate_and_changes_nothing(database: Database, task: str) -> None:
    receive(database, reply(task))
    assert receive(database, reply(task, digest="cd" * 32)) is True
    kept = update(database, task)
    assert (kept.digest, kept.duplicates, kept.verdict) == (DIGEST, 1, None)


def test_reply_after_its_round_closed_is_late(database: Database, task: str) -> None:
    with database.transaction() as session:
        session.get_one(Task, task).closed = True
    assert receive(database, reply(task)) is False
    assert update(database, task).verdict == UpdateVerdict.LATE


def test_foreign_or_unknown_task_is_not_found(database: Database, task: str) -> None:
    for device, task_id in ((1, task), (0, "run_x-1-train-1")):
        with pytest.raises(NotFound, match="task_unknown"):
            receive(database, reply(task_id), device=device)
        with database.read() as session, pytest.raises(NotFound, match="task_unknown"):
            offers.task_for_upload(session, device_id(device), task_id)


def test_reply_of_a_revoked_device_is_refused(database: Database, task: str) -> None:
    with database.transaction() as session:
        devices.revoke(session, device_id(0), now=NOW, actor="test")
    with pytest.raises(Forbidden, match="device_revoked"):
        receive(database, reply(task))
    with database.read() as session, pytest.raises(Forbidden, match="device_revoked"):
        offers.task_for_upload(session, device_id(0), task)


def test_too_large_reply_is_refused_and_an_honest_one_taken(database: Database, task: str) -> None:
    with pytest.raises(InvalidInput, match="reply_too_large"):
        receive(database, reply(task, size=101))
    assert receive(database, reply(task, size=100)) is False


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "7", '{"metrics": NaN}', '{"a": "\\u0000"}', '{"a": ' * 100_000, '{"a": "' + "x" * 300_000 + '"}'],
    ids=["cut", "list", "number", "nan", "nul", "deep", "long"],
)
def test_records_that_are_none_are_kept_as_a_failure(database: Database, task: str, text: str) -> None:
    assert receive(database, reply(task, records_json=text)) is False
    assert update(database, task).code == "malformed_reply"
    assert offered(database) == []


def test_device_reads_only_blobs_of_its_open_tasks(database: Database, task: str) -> None:
    def reads(device: int, digest: str) -> bool:
        with database.read() as session:
            return offers.reads(session, device_id(device), digest)

    assert reads(0, DIGEST)
    assert not reads(1, DIGEST)
    assert not reads(0, "cd" * 32)
    receive(database, reply(task))
    assert not reads(0, DIGEST)
