"""A run in which device classes train different sizes, over rows and blobs, killed and not killed."""

from __future__ import annotations

import pytest
from sqlalchemy import update
from training_fleet import Agents, add_devices, create_run, device_id, engine

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.jobs import service as jobs
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.training import service
from fogline_server.training.ensemble.spec import Ensemble
from fogline_server.training.tables import Run, Task
from fogline_server.training.trainer import Trainer
from fogline_shared.errors import InvalidInput

LARGE = ("dev_0", "dev_1")
SPEC = {
    "rounds": 3,
    "strategy": "fedadam",
    "min_devices": 4,
    "quorum": 1.0,
    "ensemble": Ensemble(sizes={"large": "teacher"}, steps=20, batch_size=32),
}


@pytest.fixture
def fleet(sqlite_database: Database) -> Database:
    add_devices(sqlite_database, 4)
    with sqlite_database.transaction() as session:
        session.execute(update(Device).where(Device.id.in_(LARGE)).values(device_class="large"))
    return sqlite_database


def run_of(db: Database, run_id: str) -> Run:
    with db.read() as session:
        return service.get_run(session, run_id)


def test_each_class_trains_its_size_and_the_run_tells_of_its_control(
    fleet: Database, blobs: BlobStore, doorbell: Doorbell
) -> None:
    run_id, job_id = create_run(fleet, **SPEC)
    with Agents(fleet, blobs, doorbell, 4):
        engine(fleet, blobs, doorbell).execute(job_id)
    run = run_of(fleet, run_id)
    assert (run.state, run.rounds_done, run.error) == ("SUCCEEDED", 3, None)
    with fleet.read() as session:
        sizes = {
            task.device_id: task.records["config"]["values"]["size"]
            for task in session.query(Task).where(Task.run_id == run_id, Task.kind == "train")
        }
        rounds = [row.metrics for row in service.rounds_of(session, run_id)[1:]]
        result = jobs.get_job(session, job_id).result
    assert sizes == {device_id(i): "teacher" if device_id(i) in LARGE else "student" for i in range(4)}
    for metrics in rounds:
        assert metrics["accepted"] == metrics["ensemble_members"] == 4
        assert {"holdout_accuracy", "control_holdout_accuracy", "teacher_holdout_accuracy"} <= set(metrics)
    told = result["distillation"]
    assert told["control"] == rounds[-1]["control_holdout_accuracy"]
    assert told["distilled"] == rounds[-1]["holdout_accuracy"]
    assert told["better"] in {"control", "distilled", "neither"}


class Killed(BaseException):
    """The process is gone."""


def test_killed_around_a_rounds_commit_it_ends_with_the_same_bytes(
    fleet: Database, blobs: BlobStore, doorbell: Doorbell, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Trainer._commit
    deaths: list[str] = []

    def lived(*plan: str) -> tuple[Run, list[str | None]]:
        deaths[:] = plan
        run_id, job_id = create_run(fleet, **SPEC)
        with Agents(fleet, blobs, doorbell, 4):
            if plan:
                with pytest.raises(Killed):
                    engine(fleet, blobs, doorbell, lease_s=0.2).execute(job_id)
            again(fleet, blobs, doorbell, job_id)
        with fleet.read() as session:
            return service.get_run(session, run_id), [row.params_out for row in service.rounds_of(session, run_id)]

    def commit(self: Trainer, number: int, *rest: object) -> None:
        where = deaths.pop() if number == 2 and deaths else ""
        if where == "before":
            raise Killed
        honest(self, number, *rest)
        if where == "after":
            raise Killed

    monkeypatch.setattr(Trainer, "_commit", commit)
    whole, expected = lived()
    for moment in ("before", "after"):
        hit, found = lived(moment)
        assert (hit.state, hit.rounds_done, found) == ("SUCCEEDED", 3, expected)
        assert hit.params_digest == whole.params_digest
        assert hit.strategy_state_digest == whole.strategy_state_digest is not None


def again(db: Database, blobs: BlobStore, doorbell: Doorbell, job_id: str) -> None:
    """The dead worker's lease runs out, and another takes the job."""
    worker = engine(db, blobs, doorbell)
    while True:
        worker.reconcile()
        worker.execute(job_id)
        with db.read() as session:
            if jobs.get_job(session, job_id).state == "SUCCEEDED":
                return


def test_class_that_no_device_has_is_refused_with_those_there_are(fleet: Database) -> None:
    with pytest.raises(InvalidInput, match="classes: generic, large") as caught:
        create_run(fleet, ensemble=Ensemble(sizes={"jetson": "teacher"}))
    assert caught.value.code == "unknown_device_class"
