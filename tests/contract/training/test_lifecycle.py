"""Pause, resume, cancel and extend, as rows, on both databases. The trainer's side is in tests/faults/training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select, update
from training_fleet import create_run

from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.db.events import Event
from fogline_server.jobs.tables import Job
from fogline_server.training import lifecycle, service
from fogline_server.training.tables import Run
from fogline_shared.errors import Conflict, InvalidInput, NotFound


def ask(db: Database, verb: Callable[..., Run], run_id: str, *rest: int) -> tuple[str, str]:
    """The run's state after the request, and its job's id."""
    with db.transaction() as session:
        run = verb(session, run_id, *rest, now=utc_now(), actor="key_1")
        return run.state, run.job_id


def at_work(db: Database, run_id: str) -> str:
    """A worker has the run's job; its id."""
    with db.transaction() as session:
        run = service.get_run(session, run_id)
        session.execute(update(Job).where(Job.id == run.job_id).values(state="RUNNING"))
        if run.state == "PENDING":
            run.state = "RUNNING"
        return run.job_id


def end_job(db: Database, run_id: str, *, rounds_done: int) -> Run:
    """As the trainer ends its job, after so many rounds; the run as it is then."""
    with db.transaction() as session:
        run = service.get_run(session, run_id)
        run.rounds_done = rounds_done
        session.flush()
        job = session.get_one(Job, run.job_id)
        lifecycle.end_stint(session, run_id, now=utc_now())
        job.state = "SUCCEEDED"
    with db.read() as session:
        return service.get_run(session, run_id)


def events(db: Database, run_id: str) -> list[str]:
    with db.read() as session:
        return list(session.scalars(select(Event.kind).where(Event.subject_id == run_id).order_by(Event.seq)))


def test_a_run_rests_after_its_job_and_resumes_with_another(database: Database) -> None:
    run_id, job_id = create_run(database, rounds=3)
    at_work(database, run_id)
    assert ask(database, lifecycle.pause_run, run_id) == ("PAUSED", job_id)
    rests = end_job(database, run_id, rounds_done=1)
    assert (rests.state, rests.job_id, rests.finished_at) == ("PAUSED", job_id, None)
    state, job_id_after = ask(database, lifecycle.resume_run, run_id)
    assert state == "RUNNING"
    assert job_id_after != job_id
    at_work(database, run_id)
    assert end_job(database, run_id, rounds_done=3).state == "SUCCEEDED"
    assert events(database, run_id) == ["run.created", "run.paused", "run.resumed", "run.succeeded"]


def test_resumed_before_its_trainer_looked_it_keeps_its_job(database: Database) -> None:
    run_id, job_id = create_run(database, rounds=3)
    at_work(database, run_id)
    ask(database, lifecycle.pause_run, run_id)
    assert ask(database, lifecycle.resume_run, run_id) == ("RUNNING", job_id)


def test_resumed_between_its_trainers_look_and_its_jobs_end_it_gets_another_job(database: Database) -> None:
    run_id, job_id = create_run(database, rounds=3)
    at_work(database, run_id)
    ask(database, lifecycle.pause_run, run_id)
    ask(database, lifecycle.resume_run, run_id)
    goes_on = end_job(database, run_id, rounds_done=1)
    assert goes_on.state == "RUNNING"
    assert goes_on.job_id != job_id


def test_paused_in_its_last_round_it_succeeds_when_it_is_resumed(database: Database) -> None:
    run_id, _ = create_run(database, rounds=3)
    at_work(database, run_id)
    ask(database, lifecycle.pause_run, run_id)
    assert end_job(database, run_id, rounds_done=3).state == "PAUSED"
    ask(database, lifecycle.resume_run, run_id)
    assert end_job(database, run_id, rounds_done=3).state == "SUCCEEDED"


def test_extended_at_work_at_rest_and_after_success(database: Database) -> None:
    run_id, job_id = create_run(database, rounds=3)
    at_work(database, run_id)
    assert ask(database, lifecycle.extend_run, run_id, 2) == ("RUNNING", job_id)
    goes_on = end_job(database, run_id, rounds_done=3)
    assert (goes_on.state, goes_on.rounds_total) == ("RUNNING", 5)
    assert goes_on.job_id != job_id
    ask(database, lifecycle.pause_run, run_id)
    end_job(database, run_id, rounds_done=5)
    assert ask(database, lifecycle.extend_run, run_id, 1) == ("PAUSED", goes_on.job_id)
    ask(database, lifecycle.resume_run, run_id)
    assert end_job(database, run_id, rounds_done=6).state == "SUCCEEDED"
    state, _ = ask(database, lifecycle.extend_run, run_id, 4)
    again = end_job(database, run_id, rounds_done=10)
    assert (state, again.state, again.rounds_total, again.spec["extensions"]) == ("RUNNING", "SUCCEEDED", 10, [2, 1, 4])


def test_a_paused_run_is_canceled_at_once_if_no_job_is_at_work(database: Database) -> None:
    run_id, _ = create_run(database, rounds=3)
    at_work(database, run_id)
    ask(database, lifecycle.pause_run, run_id)
    end_job(database, run_id, rounds_done=1)
    assert ask(database, lifecycle.cancel_run, run_id)[0] == "CANCELED"


def test_canceled_after_its_trainer_saw_the_pause_it_does_not_rest(database: Database) -> None:
    run_id, _ = create_run(database, rounds=3)
    at_work(database, run_id)
    ask(database, lifecycle.pause_run, run_id)
    assert ask(database, lifecycle.cancel_run, run_id)[0] == "PAUSED"
    assert end_job(database, run_id, rounds_done=1).state == "CANCELED"


@pytest.mark.parametrize(
    ("state", "refused"),
    [
        ("PENDING", [lifecycle.resume_run]),
        ("RUNNING", [lifecycle.resume_run]),
        ("PAUSED", [lifecycle.pause_run]),
        ("SUCCEEDED", [lifecycle.pause_run, lifecycle.resume_run, lifecycle.cancel_run]),
        ("FAILED", [lifecycle.pause_run, lifecycle.resume_run, lifecycle.cancel_run, lifecycle.extend_run]),
        ("CANCELED", [lifecycle.pause_run, lifecycle.resume_run, lifecycle.cancel_run, lifecycle.extend_run]),
    ],
)
def test_what_its_state_does_not_allow_is_refused(database: Database, state: str, refused: list) -> None:
    run_id, _ = create_run(database, rounds=3)
    with database.transaction() as session:
        run = service.get_run(session, run_id)
        run.state = state
        run.finished_at = utc_now() if state in {"SUCCEEDED", "FAILED", "CANCELED"} else None
    for verb in (lifecycle.pause_run, lifecycle.resume_run, lifecycle.cancel_run, lifecycle.extend_run):
        rest = (2,) if verb is lifecycle.extend_run else ()
        if verb in refused:
            with pytest.raises(Conflict, match="illegal_transition"):
                ask(database, verb, run_id, *rest)
        else:
            with database.transaction() as session:
                verb(session, run_id, *rest, now=utc_now())
                session.rollback()


def test_a_teacher_is_not_extended_once_another_run_learns_from_it(database: Database) -> None:
    teacher_id, _ = create_run(database, rounds=1, size="teacher")
    at_work(database, teacher_id)
    end_job(database, teacher_id, rounds_done=1)
    create_run(database, rounds=1, distil_from=teacher_id)
    with pytest.raises(Conflict, match="run_in_use"):
        ask(database, lifecycle.extend_run, teacher_id, 1)


def test_bad_requests_are_named(database: Database) -> None:
    run_id, _ = create_run(database, rounds=1)
    with pytest.raises(InvalidInput, match="rounds must be an integer from 1 to"):
        ask(database, lifecycle.extend_run, run_id, 0)
    with pytest.raises(NotFound, match="run_not_found"):
        ask(database, lifecycle.pause_run, "run_x")
