"""Rounds that ask more than they need, try again, and are refused: over rows, as the trainer runs them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from training_fleet import Agents, add_devices, create_run, device_id, engine, nan

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import attempts, offers, service
from fogline_server.training.gate import Gate
from fogline_server.training.pacing import Pacing
from fogline_server.training.tables import Round, Run, Task


class Field:
    """A database, its blobs and its doorbell; runs are trained at once."""

    def __init__(self, db: Database, blobs: BlobStore, doorbell: Doorbell) -> None:
        self.parts = (db, blobs, doorbell)
        self.db = db

    def run(self, job_id: str) -> None:
        engine(*self.parts).execute(job_id)

    def state(self, run_id: str) -> Run:
        with self.db.read() as session:
            return service.get_run(session, run_id)

    def rounds(self, run_id: str) -> list[Round]:
        with self.db.read() as session:
            return list(service.rounds_of(session, run_id))

    def updates(self, run_id: str, number: int) -> list[service.UpdateView]:
        with self.db.read() as session:
            return list(service.updates_of(session, run_id, round_number=number))


@pytest.fixture
def field(sqlite_database: Database, blobs: BlobStore, doorbell: Doorbell) -> Field:
    return Field(sqlite_database, blobs, doorbell)


def test_a_round_closes_with_its_target_and_who_comes_after_is_late_and_never_counted(field: Field) -> None:
    add_devices(field.db, 5)
    pacing = Pacing(target=3, over_selection=0.6)
    run_id, job_id = create_run(field.db, rounds=1, min_devices=2, pacing=pacing)
    with Agents(*field.parts, 5, silent=(3, 4)) as agents:
        field.run(job_id)
        run, (_, trained) = field.state(run_id), field.rounds(run_id)
        assert (run.state, len(trained.cohort)) == ("SUCCEEDED", 5)
        assert trained.pace == {"asked": 5, "target": 3, "deadline_s": 300.0, "dropout": None}
        assert trained.metrics["seconds"] < 200, "it did not wait for its deadline"
        with field.db.read() as session:
            task = session.scalars(select(Task).where(Task.device_id == device_id(3), Task.round == 1)).one()
            offer = offers._offer(task, session.get_one(Run, run_id).spec)
            assert offers.open_tasks(session, device_id(3), now=utc_now()) == []
        reply = agents.reply(3, offer)
        assert [agents.deliver(3, reply) for _ in range(3)] == [False, True, True]
    verdicts = {u.device_id: (u.verdict, u.code, u.duplicates) for u in field.updates(run_id, 1)}
    assert verdicts == {
        **{device_id(i): ("ACCEPTED", "", 0) for i in range(3)},
        device_id(3): ("LATE", "round_over", 2),
    }
    assert field.state(run_id).params_digest == run.params_digest
    assert field.rounds(run_id)[1].metrics["accepted"] == 3
    with field.db.read() as session:
        (past,) = attempts.past_of(session, run_id)
    assert (past.asked, len(past.answers_s), past.deadline_s) == (5, 4, 300.0)


def test_a_round_that_failed_is_tried_again_and_each_attempt_can_be_seen(field: Field) -> None:
    add_devices(field.db, 2)
    tried: list[str] = []

    class FailsOnce(Agents):
        def reply(self, index: int, offer: Any) -> Any:
            honest = super().reply(index, offer)
            tried.extend([offer.task_id] if offer.kind == "train" else [])
            if offer.kind == "train" and index == 0 and len(tried) <= 2:
                return replace(honest, digest="", size=0, records_json="{}", error_code="disk_full", error_message="no")
            return honest

    run_id, job_id = create_run(field.db, rounds=2, pacing=Pacing(retries=1))
    with FailsOnce(*field.parts, 2):
        field.run(job_id)
    run, rounds = field.state(run_id), field.rounds(run_id)
    assert (run.state, run.rounds_done) == ("SUCCEEDED", 2)
    assert [len(each.attempts) for each in rounds] == [0, 1, 0]
    failed = rounds[1].attempts[0]
    assert (failed["code"], failed["answered"], set(failed["cohort"])) == (
        "quorum_not_reached",
        2,
        {device_id(0), device_id(1)},
    )
    by_task = {u.task_id.split("-")[1]: set() for u in field.updates(run_id, 1)}
    for update in field.updates(run_id, 1):
        by_task[update.task_id.split("-")[1]].add((update.verdict, update.code))
    assert by_task == {
        "1": {("ERROR", "disk_full"), ("REFUSED", attempts.ATTEMPT_FAILED)},
        "1.2": {("ACCEPTED", "")},
    }
    assert rounds[1].metrics["accepted"] == 2


def test_what_was_tried_as_often_as_configured_fails_the_run(field: Field) -> None:
    add_devices(field.db, 2)
    run_id, job_id = create_run(field.db, rounds=2, pacing=Pacing(retries=2))
    with Agents(*field.parts, 2, tamper={0: nan, 1: nan}):
        field.run(job_id)
    run, rounds = field.state(run_id), field.rounds(run_id)
    assert (run.state, run.error["code"]) == ("FAILED", "no_update_accepted")
    assert (rounds[1].state, len(rounds[1].attempts), rounds[1].error) == ("ABANDONED", 2, run.error)


def test_a_worse_model_is_refused_and_the_run_goes_on_from_the_old_one(field: Field) -> None:
    add_devices(field.db, 2)
    # Two who agree are the cohort's median: admission lets them in.
    turned = {"now": False}

    class Turncoats(Agents):
        def reply(self, index: int, offer: Any) -> Any:
            turned["now"] = offer.kind == "train" and offer.round == 3
            return super().reply(index, offer)

    def worse(metrics: dict, arrays: dict) -> tuple[dict, dict]:
        # Not BatchNorm's variances: below zero they would be refused for another reason.
        return metrics, {n: -3 * a if turned["now"] and a.ndim > 1 else a for n, a in arrays.items()}

    spec = {"rounds": 4, "strategy": "fedavgm", "max_norm_ratio": 1e6, "evaluate_every": 1}
    run_id, job_id = create_run(field.db, **spec, gate=Gate(max_drop=5))
    with Turncoats(*field.parts, 2, tamper={0: worse, 1: worse}):
        field.run(job_id)
    run, rounds = field.state(run_id), field.rounds(run_id)
    assert (run.state, run.rounds_done) == ("SUCCEEDED", 4)
    assert [each.state for each in rounds[1:]] == ["COMMITTED", "COMMITTED", "REFUSED", "COMMITTED"]
    refused = rounds[3]
    assert refused.error["code"] == "holdout_drop"
    assert (refused.params_out, rounds[4].params_in) == (None, rounds[2].params_out)
    assert "accuracy" not in refused.metrics, "devices are not asked to evaluate what is refused"
    assert refused.metrics["accepted"] == 2


def test_too_many_refusals_in_a_row_end_the_run(field: Field) -> None:
    add_devices(field.db, 2)

    def overflow(metrics: dict, arrays: dict) -> tuple[dict, dict]:
        return metrics, {n: np.full_like(a, 3e38) if a.dtype == np.float32 else a for n, a in arrays.items()}

    run_id, job_id = create_run(
        field.db, rounds=9, max_norm_ratio=1e6, gate=Gate(max_drop=100, patience=2), strategy="fedavg"
    )
    with Agents(*field.parts, 2, tamper={0: overflow, 1: overflow}):
        field.run(job_id)
    run, rounds = field.state(run_id), field.rounds(run_id)
    assert (run.state, run.error["code"], run.rounds_done) == ("FAILED", "rounds_refused", 2)
    assert [each.state for each in rounds[1:]] == ["REFUSED", "REFUSED"]
    assert {each.error["code"] for each in rounds[1:]} == {"model_not_finite"}
    assert rounds[2].params_in == rounds[1].params_in == run.params_digest


def test_devices_rest_while_there_are_others_and_the_pace_follows_the_rows(field: Field) -> None:
    add_devices(field.db, 9)
    pacing = Pacing(target=2, steering=True, self_tuning=True)
    run_id, job_id = create_run(field.db, rounds=3, pacing=pacing)
    with Agents(*field.parts, 9):
        field.run(job_id)
    cohorts = [set(each.cohort) for each in field.rounds(run_id)[1:]]
    assert [len(cohort) for cohort in cohorts] == [2, 2, 2]
    assert not cohorts[0] & cohorts[1]
    assert not cohorts[1] & cohorts[2]
    with field.db.read() as session:
        spec = service.RunSpec.from_json(service.get_run(session, run_id).spec)
        later = utc_now() + timedelta(seconds=301)
        pace = attempts.pace(session, run_id, spec, now=later)
    # Six answers of six make nobody sure of the next two.
    assert (pace.dropout, pace.asked) == (0.0, 5)
    assert 1.0 <= pace.deadline_s < 300.0
