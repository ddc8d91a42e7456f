"""A trainer killed while devices answer: their replies arrive, and the run ends with the bytes of an unkilled one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import training_fleet
from parts import die_with_us, eventually
from sqlalchemy import func, select
from training_fleet import Agents, add_devices, create_run, engine

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.jobs import service as jobs
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import service
from fogline_server.training.tables import Round, Task, Update

DEVICES, ROUNDS = 3, 3
SPEC = {"rounds": ROUNDS, "min_devices": DEVICES, "strategy": "fedadam", "seed": 3, "evaluate_every": 2}


@pytest.fixture
def place(database: Database, database_url: str, blobs: BlobStore, tmp_path: Path, redis_url: str):
    add_devices(database, DEVICES)
    return {"db": database, "blobs": blobs, "doorbell": Doorbell(redis_url)}, [
        database_url,
        redis_url,
        str(tmp_path / "blobs"),
    ]


def uninterrupted(parts: dict) -> str:
    run_id, job_id = create_run(parts["db"], **SPEC)
    with Agents(**parts, count=DEVICES):
        engine(**parts).execute(job_id)
    with parts["db"].read() as session:
        digest = service.get_run(session, run_id).params_digest
    assert digest is not None
    return digest


def start_trainer(arguments: list[str], job_id: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, training_fleet.__file__, *arguments, job_id]
    env = os.environ | {"PYTHONPATH": str(Path(training_fleet.__file__).parent)}
    return subprocess.Popen(command, env=env, start_new_session=True, preexec_fn=die_with_us)  # noqa: PLW1509


def take_away(parts: dict, job_id: str) -> None:
    """What the coordinator's reconciler does when the lease has expired."""

    def queued() -> bool:
        engine(**parts).reconcile()
        with parts["db"].read() as session:
            return jobs.get_job(session, job_id).state == "QUEUED"

    eventually(queued, 10)


def count(parts: dict, statement) -> int:
    with parts["db"].read() as session:
        return session.scalar(statement) or 0


@pytest.mark.slow
def test_killed_between_replies_of_a_round(place) -> None:
    parts, arguments = place
    expected = uninterrupted(parts)
    run_id, job_id = create_run(parts["db"], **SPEC)
    replies = select(func.count()).select_from(Update).join(Task).where(Task.run_id == run_id, Task.round == 2)
    with Agents(**parts, count=DEVICES, pause_s=0.3):
        trainer = start_trainer(arguments, job_id)
        eventually(lambda: count(parts, replies) == 1, 40)
        os.killpg(trainer.pid, signal.SIGKILL)
        trainer.wait()
        # The devices do not know; their replies arrive while nobody trains.
        eventually(lambda: count(parts, replies) == DEVICES, 20)
        take_away(parts, job_id)
        engine(**parts).execute(job_id)
    check(parts, run_id, expected)


def check(parts: dict, run_id: str, expected: str) -> None:
    with parts["db"].read() as session:
        run = service.get_run(session, run_id)
        rounds = session.scalars(select(Round).where(Round.run_id == run_id).order_by(Round.number)).all()
        updates = session.execute(
            select(Task.round, Task.kind, func.count(), func.count(Update.verdict))
            .join(Update, Update.task_id == Task.id)
            .where(Task.run_id == run_id, Update.verdict == "ACCEPTED")
            .group_by(Task.round, Task.kind)
            .order_by(Task.round, Task.kind)
        ).all()
        tasks = session.scalar(select(func.count()).where(Task.run_id == run_id))
    assert (run.state, run.rounds_done) == ("SUCCEEDED", ROUNDS)
    assert [(r.number, r.state) for r in rounds] == [(n, "COMMITTED") for n in range(ROUNDS + 1)]
    assert [tuple(row[:3]) for row in updates] == [
        (0, "query", DEVICES),
        (1, "train", DEVICES),
        (2, "evaluate", DEVICES),
        (2, "train", DEVICES),
        (3, "train", DEVICES),
    ]
    assert tasks == DEVICES * (ROUNDS + 2), "no task was sent twice"
    assert run.params_digest == expected
