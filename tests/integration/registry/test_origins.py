"""A run that starts from a release, and a released run, which stays as it is."""

from __future__ import annotations

import pytest
from training_fleet import Agents, add_devices, create_run, engine

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.db.events import Event
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.registry import origins
from fogline_server.registry.tables import Release
from fogline_server.training import service
from fogline_server.training.spec import RunSpec
from fogline_server.training.tables import Run
from fogline_shared.errors import Conflict, InvalidInput, NotFound

DEVICES = 2


def trained(db: Database, blobs: BlobStore, doorbell: Doorbell, job_id: str, run_id: str) -> Run:
    with Agents(db, blobs, doorbell, DEVICES):
        engine(db, blobs, doorbell).execute(job_id)
    with db.read() as session:
        return service.get_run(session, run_id)


@pytest.fixture
def source(database: Database, blobs: BlobStore, doorbell: Doorbell) -> Run:
    """The run behind the release ``first``, which chose the distilled student over its control."""
    add_devices(database, DEVICES)
    run_id, job_id = create_run(database, rounds=1)
    run = trained(database, blobs, doorbell, job_id, run_id)
    with database.transaction() as session:
        session.add(
            Release(
                id="rel_1",
                name="first",
                recipe="tiny",
                state="READY",
                lineage={"runs": {"student": "run_of_the_control", "distilled": run.id}},
                report={"choice": {"chosen": "distilled"}},
                created_at=utc_now(),
            )
        )
    return run


def start(db: Database, reference: str = "first", **spec: object) -> tuple[str, str]:
    with db.transaction() as session:
        wanted = RunSpec(**{"recipe": "tiny", "rounds": 1, **spec})
        run = origins.create_run_from(session, wanted, reference, now=utc_now(), actor="key_1")
        assert run.job_id is not None
        return run.id, run.job_id


def test_a_run_starts_from_the_released_students_weights_and_standardisation(
    database: Database, blobs: BlobStore, doorbell: Doorbell, source: Run
) -> None:
    run_id, job_id = start(database)
    run = trained(database, blobs, doorbell, job_id, run_id)
    assert (run.state, run.statistics) == ("SUCCEEDED", source.statistics)
    with database.read() as session:
        rounds = service.rounds_of(session, run_id)
        told = session.query(Event).where(Event.kind == "run.initialised", Event.subject_id == run_id).one()
    assert [(each.number, each.params_in) for each in rounds] == [(1, source.params_digest)]
    assert run.params_digest != source.params_digest
    assert told.data == {"release": "rel_1", "release_name": "first", "source": source.id}


def test_a_run_starts_from_a_student_that_was_taught_at_the_cloud(
    database: Database, blobs: BlobStore, source: Run
) -> None:
    taught = blobs.put([b"what the teacher made of the run's parameters"]).digest
    with database.transaction() as session:
        release = session.get_one(Release, "rel_1")
        release.lineage = {"runs": {"student": source.id}, "taught": {"digest": taught}}
    run_id, _ = start(database)
    with database.read() as session:
        run = service.get_run(session, run_id)
    assert run.spec["init_from"] == taught
    assert run.statistics == source.statistics


def test_a_released_run_is_not_extended_and_one_that_is_not_released_is(database: Database, source: Run) -> None:
    with database.transaction() as session, pytest.raises(Conflict, match="'first'") as caught:
        origins.extend_run(session, source.id, 1, now=utc_now(), actor="key_1")
    assert caught.value.code == "run_in_use"
    other, _ = create_run(database, rounds=1)
    with database.transaction() as session:
        assert origins.extend_run(session, other, 1, now=utc_now(), actor="key_1").rounds_total == 2


@pytest.mark.parametrize(
    ("spec", "error", "code"),
    [
        ({"reference": "second"}, NotFound, "release_not_found"),
        ({"size": "teacher"}, Conflict, "release_without_run"),
        ({"recipe": "smartwatch"}, InvalidInput, "run_of_other_recipe"),
        ({"init_from": "a" * 64}, InvalidInput, "invalid_run"),
        ({"distil_from": "run_x"}, InvalidInput, "invalid_run"),
    ],
)
def test_what_cannot_be_started_from_is_named(
    database: Database, source: Run, spec: dict[str, object], error: type[Exception], code: str
) -> None:
    with pytest.raises(error) as caught:
        start(database, **spec)
    assert caught.value.code == code
