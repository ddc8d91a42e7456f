"""Asynchronous runs over rows, as the trainer runs them: slow devices hold nobody up, and what they learned counts by its age."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from buffered_steps import check_steps
from parts import eventually
from simulation import simulate
from training_fleet import Agents, add_devices, create_run, device_id, engine

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import lifecycle, service
from fogline_server.training.asynchronous import buffer
from fogline_server.training.tables import Round, Run

SLOW = 0
# A matter of the trainer's steps, not of locks.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Field:
    """A database, its blobs and its doorbell; runs are trained at once."""

    def __init__(self, db: Database, blobs: BlobStore, doorbell: Doorbell) -> None:
        self.parts = (db, blobs, doorbell)
        self.db, self.blobs = db, blobs

    def train(self, devices: int, *, agents: dict[str, Any] | None = None, **spec: Any) -> Run:
        add_devices(self.db, devices)
        run_id, job_id = create_run(self.db, **{"strategy": "fedbuff", "min_devices": 1, **spec})
        with Agents(*self.parts, devices, **(agents or {})):
            engine(*self.parts).execute(job_id)
        with self.db.read() as session:
            return service.get_run(session, run_id)

    def rounds(self, run_id: str) -> list[Round]:
        with self.db.read() as session:
            return list(service.rounds_of(session, run_id))

    def updates(self, run_id: str) -> list[service.UpdateView]:
        with self.db.read() as session:
            return [each for each in service.updates_of(session, run_id) if each.kind == "train"]


@pytest.fixture
def field(database: Database, blobs: BlobStore, doorbell: Doorbell) -> Field:
    return Field(database, blobs, doorbell)


def test_a_slow_device_holds_nobody_up_and_counts_by_its_age(field: Field) -> None:
    run = field.train(3, rounds=6, agents={"lag": {SLOW: 2}}, strategy_options={"buffer_size": 2}, evaluate_every=6)
    assert (run.state, run.rounds_done, run.error) == ("SUCCEEDED", 6, None)
    rounds, updates = field.rounds(run.id), field.updates(run.id)
    slow = [update for update in updates if update.device_id == device_id(SLOW)]
    assert slow[0].verdict == "ACCEPTED"
    assert slow[0].staleness is not None
    assert slow[0].staleness >= 2, "two steps were taken without it"
    assert "accuracy" in rounds[6].metrics
    check_steps(field.db, field.blobs, run.id, buffer_size=2)


@on_sqlite
def test_with_a_buffer_for_all_it_agrees_with_a_run_in_one_process_to_the_byte(field: Field) -> None:
    spec = {"rounds": 3, "strategy_options": {"buffer_size": 3}, "seed": 3}
    run = field.train(3, **spec)
    assert run.params_digest == simulate(3, strategy="fedbuff", **spec)


def test_paused_resumed_and_extended_it_goes_on_with_whoever_is_at_work(field: Field) -> None:
    add_devices(field.db, 3)
    options = {"buffer_size": 2}
    run_id, job_id = create_run(field.db, strategy="fedbuff", strategy_options=options, rounds=3, min_devices=1)
    with Agents(*field.parts, 3, lag={SLOW: 2}):
        with field.db.transaction() as session:
            lifecycle.extend_run(session, run_id, 1, now=utc_now())
            lifecycle.pause_run(session, run_id, now=utc_now())
        engine(*field.parts).execute(job_id)
        with field.db.transaction() as session:
            assert service.get_run(session, run_id).rounds_done == 0
            resumed = lifecycle.resume_run(session, run_id, now=utc_now()).job_id
        engine(*field.parts).execute(resumed)
        with field.db.transaction() as session:
            assert service.get_run(session, run_id).state == "SUCCEEDED"
            extended = lifecycle.extend_run(session, run_id, 2, now=utc_now()).job_id
        engine(*field.parts).execute(extended)
    with field.db.read() as session:
        run = service.get_run(session, run_id)
    assert (run.state, run.rounds_done) == ("SUCCEEDED", 6)
    check_steps(field.db, field.blobs, run_id, buffer_size=2)


@on_sqlite
def test_a_run_that_is_canceled_leaves_nobody_at_work(field: Field) -> None:
    add_devices(field.db, 2)
    run_id, job_id = create_run(field.db, strategy="fedbuff", rounds=3, min_devices=1)
    work = threading.Thread(target=engine(*field.parts).execute, args=(job_id,))
    with Agents(*field.parts, 2, lag={0: 9, 1: 9}):
        work.start()
        eventually(lambda: len(field.rounds(run_id)) == 2)
        with field.db.transaction() as session:
            lifecycle.cancel_run(session, run_id, now=utc_now())
        work.join()
    with field.db.read() as session:
        assert service.get_run(session, run_id).state == "CANCELED"
        assert buffer.busy(session, run_id, now=utc_now()) == set()
    assert field.rounds(run_id)[1].state == "ABANDONED"


@on_sqlite
def test_what_is_too_stale_is_late_with_a_code_and_no_step_counts_it(field: Field) -> None:
    options = {"buffer_size": 2, "max_staleness": 1}
    run = field.train(3, rounds=5, agents={"lag": {SLOW: 3}}, strategy_options=options)
    assert run.state == "SUCCEEDED"
    first = next(update for update in field.updates(run.id) if update.device_id == device_id(SLOW))
    assert (first.verdict, first.code) == ("LATE", "too_stale")
    assert "max_staleness is 1" in first.reason
    assert field.rounds(run.id)[first.step].metrics["late"] >= 1
    check_steps(field.db, field.blobs, run.id, buffer_size=2)


@on_sqlite
def test_encoded_updates_of_earlier_versions_are_decoded_and_counted(field: Field) -> None:
    options = {"buffer_size": 2}
    run = field.train(3, rounds=5, agents={"lag": {SLOW: 2}}, strategy_options=options, codec="int8")
    assert run.state == "SUCCEEDED"
    assert all(row.metrics["bytes_sent"] < row.metrics["bytes_plain"] / 2 for row in field.rounds(run.id)[1:])
    assert max(update.staleness or 0 for update in field.updates(run.id)) >= 2
    check_steps(field.db, field.blobs, run.id, buffer_size=2)
