"""The trainer as a job, over rows and blobs, with devices that answer honestly or not."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from parts import eventually
from sqlalchemy import select, update
from training_fleet import Agents, add_devices, create_run, device_id, engine

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.db.events import Event
from fogline_server.devices.tables import Device
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import lifecycle, offers, service
from fogline_server.training.tables import Round, Run, Task, Update
from fogline_shared import tensors
from fogline_shared.errors import Conflict, InvalidInput, NotFound
from fogline_shared.protocol import TaskReply
from fogline_shared.recipe import Standardisation


def run_of(db: Database, run_id: str) -> Run:
    with db.read() as session:
        return service.get_run(session, run_id)


def rounds_of(db: Database, run_id: str) -> list[Round]:
    with db.read() as session:
        return list(service.rounds_of(session, run_id))


def updates_of(db: Database, run_id: str, number: int) -> list[service.UpdateView]:
    with db.read() as session:
        return list(service.updates_of(session, run_id, round_number=number))


def train(db: Database, blobs: BlobStore, doorbell: Doorbell, count: int, *, agents: dict | None = None, **spec) -> Run:
    run_id, job_id = create_run(db, **spec)
    with Agents(db, blobs, doorbell, count, **(agents or {})):
        engine(db, blobs, doorbell).execute(job_id)
    return run_of(db, run_id)


def test_run_trains_and_leaves_parameters_curve_and_statistics(
    database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    add_devices(database, 3)
    run = train(database, blobs, doorbell, 3, rounds=3, evaluate_every=3, min_devices=3)
    assert (run.state, run.rounds_done, run.error) == ("SUCCEEDED", 3, None)
    rounds = rounds_of(database, run.id)
    assert [(r.number, r.state) for r in rounds] == [(n, "COMMITTED") for n in range(4)]
    assert [r.params_in for r in rounds[2:]] == [r.params_out for r in rounds[1:3]]
    assert run.params_digest == rounds[3].params_out
    assert all(0 <= r.metrics["holdout_accuracy"] <= 1 and r.metrics["loss"] > 0 for r in rounds[1:])
    assert "accuracy" in rounds[3].metrics
    assert "accuracy" not in rounds[2].metrics
    assert [r.metrics["accepted"] for r in rounds] == [3, 3, 3, 6]
    assert run.statistics is not None
    assert len(Standardisation.from_json(run.statistics).mean) == 6
    arrays = tensors.decode(blobs.read(run.params_digest))
    assert all(np.isfinite(array).all() for array in arrays.values())
    updates = updates_of(database, run.id, 1)
    assert {u.device_id for u in updates} == {device_id(i) for i in range(3)}
    assert all(u.verdict == "ACCEPTED" and u.metrics["num-examples"] == 64 for u in updates)


def nan(metrics, arrays):
    return metrics, {name: np.full_like(array, np.nan) for name, array in arrays.items()}


def wrong_shape(metrics, arrays):
    return metrics, {name: array[..., None] for name, array in arrays.items()}


def missing_key(metrics, arrays):
    return metrics, dict(list(arrays.items())[1:])


def many_samples(metrics, arrays):
    return metrics | {"num-examples": 10**12}, arrays


@pytest.mark.parametrize(
    ("tamper", "code"),
    [
        (nan, "not_finite"),
        (wrong_shape, "wrong_shape"),
        (missing_key, "wrong_keys"),
        (many_samples, "implausible_samples"),
    ],
)
def test_bad_update_is_a_row_with_a_reason_and_the_round_goes_on(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell, tamper, code: str
) -> None:
    add_devices(sqlite_database, 4)
    run = train(sqlite_database, blobs, doorbell, 4, agents={"tamper": {2: tamper}}, rounds=2, quorum=0.75)
    assert (run.state, run.rounds_done) == ("SUCCEEDED", 2)
    verdicts = {u.device_id: (u.verdict, u.code) for u in updates_of(sqlite_database, run.id, 1)}
    assert verdicts.pop(device_id(2)) == ("REFUSED", code)
    assert set(verdicts.values()) == {("ACCEPTED", "")}
    assert rounds_of(sqlite_database, run.id)[1].metrics["refused"] == 1


def test_unreadable_reply_and_failed_device_count_for_nothing(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    add_devices(sqlite_database, 4)

    class Faulty(Agents):
        def reply(self, index, offer):
            honest = super().reply(index, offer)
            if offer.kind != "train" or index < 2:
                return honest
            if index == 2:
                return TaskReply(
                    task_id=offer.task_id,
                    digest="",
                    size=0,
                    records_json="{}",
                    error_code="disk_full",
                    error_message="no",
                )
            blob = blobs.put([blobs.read(honest.digest)[:-7]])
            return replace(honest, digest=blob.digest, size=blob.size)

    run_id, job_id = create_run(sqlite_database, rounds=1, min_devices=4, quorum=0.5)
    with Faulty(sqlite_database, blobs, doorbell, 4):
        engine(sqlite_database, blobs, doorbell).execute(job_id)
    assert run_of(sqlite_database, run_id).state == "SUCCEEDED"
    verdicts = {u.device_id: (u.verdict, u.code) for u in updates_of(sqlite_database, run_id, 1)}
    assert verdicts[device_id(2)] == ("ERROR", "disk_full")
    assert verdicts[device_id(3)] == ("REFUSED", "bad_tensors")


def test_run_fails_with_the_first_reason_when_no_update_is_usable(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    add_devices(sqlite_database, 2)
    run = train(sqlite_database, blobs, doorbell, 2, agents={"tamper": {0: nan, 1: nan}}, rounds=2)
    assert run.state == "FAILED"
    assert run.error is not None
    assert run.error["code"] == "no_update_accepted"
    assert "not_finite" in run.error["message"]
    assert rounds_of(sqlite_database, run.id)[-1].state == "ABANDONED"


def test_round_commits_only_with_a_quorum_of_usable_updates(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    add_devices(sqlite_database, 4)
    bad = {"tamper": {3: nan}}
    enough = train(sqlite_database, blobs, doorbell, 4, agents=bad, rounds=1, min_devices=4, quorum=0.75)
    assert (enough.state, rounds_of(sqlite_database, enough.id)[1].metrics["accepted"]) == ("SUCCEEDED", 3)
    run = train(sqlite_database, blobs, doorbell, 4, agents=bad, rounds=1, min_devices=4, quorum=0.8)
    assert (run.state, run.rounds_done) == ("FAILED", 0)
    assert run.error is not None
    assert run.error["code"] == "quorum_not_reached"
    assert "3 of 4 updates of round 1 are usable, 4 are needed" in run.error["message"]
    assert "not_finite" in run.error["message"]
    assert rounds_of(sqlite_database, run.id)[-1].state == "ABANDONED"


def test_statistics_need_the_quorum_too(sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell) -> None:
    add_devices(sqlite_database, 2)

    class Broken(Agents):
        def reply(self, index, offer):
            honest = super().reply(index, offer)
            if index == 0 or offer.kind != "query":
                return honest
            return replace(honest, digest="", size=0, records_json="{}", error_code="disk_full", error_message="no")

    run_id, job_id = create_run(sqlite_database, rounds=1)
    with Broken(sqlite_database, blobs, doorbell, 2):
        engine(sqlite_database, blobs, doorbell).execute(job_id)
    run = run_of(sqlite_database, run_id)
    assert run.error is not None
    assert run.error["code"] == "quorum_not_reached"
    assert "1 of 2 updates of round 0 are usable" in run.error["message"]


def test_straggler_is_cut_at_the_deadline_and_its_reply_is_late(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    add_devices(sqlite_database, 4)
    run_id, job_id = create_run(sqlite_database, rounds=1, min_devices=4, quorum=0.75, round_deadline_s=1.0)
    with Agents(sqlite_database, blobs, doorbell, 4, silent=(3,)) as agents:
        engine(sqlite_database, blobs, doorbell).execute(job_id)
        assert run_of(sqlite_database, run_id).state == "SUCCEEDED"
        with sqlite_database.read() as session:
            task = session.scalars(select(Task).where(Task.device_id == device_id(3), Task.round == 1)).one()
            offer = offers._offer(task, session.get_one(Run, run_id).spec)
        agents.deliver(3, agents.reply(3, offer))
    late = {u.device_id: u.verdict for u in updates_of(sqlite_database, run_id, 1)}
    assert late[device_id(3)] == "LATE"
    assert rounds_of(sqlite_database, run_id)[1].metrics["accepted"] == 3


def test_run_without_a_quorum_fails_and_says_how_many_answered(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    add_devices(sqlite_database, 3)
    run_id, job_id = create_run(sqlite_database, rounds=1, min_devices=3, quorum=1.0, round_deadline_s=1.0)
    with Agents(sqlite_database, blobs, doorbell, 3, silent=(0,)):
        engine(sqlite_database, blobs, doorbell).execute(job_id)
    run = run_of(sqlite_database, run_id)
    assert run.error == {"code": "quorum_not_reached", "message": run.error["message"]}
    assert "2 of 3" in run.error["message"]


def test_run_waits_for_enough_devices(sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell) -> None:
    add_devices(sqlite_database, 2)
    with sqlite_database.transaction() as session:
        session.execute(update(Device).where(Device.id == device_id(1)).values(lease_until=utc_now()))
    run_id, job_id = create_run(sqlite_database, rounds=1, min_devices=2)
    work = threading.Thread(target=engine(sqlite_database, blobs, doorbell).execute, args=(job_id,))
    with Agents(sqlite_database, blobs, doorbell, 2):
        work.start()
        time.sleep(0.6)
        assert rounds_of(sqlite_database, run_id) == []
        with sqlite_database.transaction() as session:
            later = utc_now() + timedelta(hours=1)
            session.execute(update(Device).where(Device.id == device_id(1)).values(lease_until=later))
        work.join()
    assert run_of(sqlite_database, run_id).state == "SUCCEEDED"


def test_canceled_run_ends_and_offers_nothing_more(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    add_devices(sqlite_database, 2)
    run_id, job_id = create_run(sqlite_database, rounds=1)
    work = threading.Thread(target=engine(sqlite_database, blobs, doorbell).execute, args=(job_id,))
    work.start()

    def offered() -> bool:
        with sqlite_database.read() as session:
            return bool(offers.open_tasks(session, device_id(0), now=utc_now()))

    eventually(offered)
    with sqlite_database.transaction() as session:
        lifecycle.cancel_run(session, run_id, now=utc_now(), actor="key_1")
    work.join()
    assert run_of(sqlite_database, run_id).state == "CANCELED"
    assert not offered()
    with sqlite_database.transaction() as session, pytest.raises(Conflict, match="illegal_transition"):
        lifecycle.cancel_run(session, run_id, now=utc_now())


def test_distilled_run_learns_from_its_teacher_with_the_teachers_statistics(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    add_devices(sqlite_database, 2)
    teacher = train(sqlite_database, blobs, doorbell, 2, size="teacher", rounds=1)
    control = train(sqlite_database, blobs, doorbell, 2, rounds=1)
    distilled = train(sqlite_database, blobs, doorbell, 2, rounds=1, distil_from=teacher.id)
    assert distilled.state == "SUCCEEDED"
    assert distilled.statistics == teacher.statistics
    assert [r.number for r in rounds_of(sqlite_database, distilled.id)] == [1]
    assert distilled.params_digest != control.params_digest
    with sqlite_database.read() as session:
        task = session.scalars(select(Task).where(Task.run_id == distilled.id)).first()
    assert {blob["record"]: blob["digest"] for blob in task.blobs}["teacher"] == teacher.params_digest


def test_run_starts_from_given_parameters(sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell) -> None:
    add_devices(sqlite_database, 2)
    first = train(sqlite_database, blobs, doorbell, 2, rounds=1)
    second = train(sqlite_database, blobs, doorbell, 2, rounds=1, init_from=first.params_digest)
    assert rounds_of(sqlite_database, second.id)[1].params_in == first.params_digest
    foreign = train(sqlite_database, blobs, doorbell, 2, size="teacher", rounds=1, init_from=first.params_digest)
    assert (foreign.state, foreign.error["code"]) == ("FAILED", "params_mismatch")


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(
    sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    add_devices(sqlite_database, 3)
    runs = [
        train(sqlite_database, blobs, doorbell, 3, rounds=2, min_devices=3, strategy="fedadam", seed=seed)
        for seed in (1, 1, 2)
    ]
    assert runs[0].params_digest == runs[1].params_digest != runs[2].params_digest


def test_cohort_is_chosen_by_tags_and_size(sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell) -> None:
    add_devices(sqlite_database, 4, tags=("ward",))
    with sqlite_database.transaction() as session:
        session.get_one(Device, device_id(0)).tags = []
        session.get_one(Device, device_id(1)).tags = ["ward", "unseen"]
    spec = {"rounds": 1, "min_devices": 1, "tags": ["ward"], "exclude_tags": ["unseen"]}
    run = train(sqlite_database, blobs, doorbell, 4, **spec)
    assert rounds_of(sqlite_database, run.id)[1].cohort == [device_id(2), device_id(3)]
    one = train(sqlite_database, blobs, doorbell, 4, max_devices=1, **spec)
    assert [len(r.cohort) for r in rounds_of(sqlite_database, one.id)] == [1, 1]


def test_bad_requests_are_refused_when_the_run_is_created(database: Database) -> None:
    with pytest.raises(InvalidInput, match="unknown_recipe"):
        create_run(database, recipe="nobody")
    with pytest.raises(NotFound, match="run_not_found"):
        create_run(database, distil_from="run_x")
    teacher, _ = create_run(database, size="teacher")
    with pytest.raises(Conflict, match="teacher_not_ready"):
        create_run(database, distil_from=teacher)
    with pytest.raises(InvalidInput, match="not of smartwatch"):
        create_run(database, recipe="smartwatch", distil_from=teacher)
    with database.read() as session:
        assert [run.id for run in service.list_runs(session, recipe="tiny")] == [teacher]
        assert service.list_runs(session, after=teacher) == []
        assert session.scalars(select(Event.kind).where(Event.subject_type == "run")).all() == ["run.created"]
        assert session.scalars(select(Update)).all() == []
