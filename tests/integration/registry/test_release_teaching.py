"""A release whose student is taught at the cloud, and released only if that bettered it."""

from __future__ import annotations

import pytest
from tiny_release import finished_run, ready_release

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.registry import service
from fogline_server.registry.model import ReleaseSpec
from fogline_shared.errors import InvalidInput

TAUGHT = {"steps": 60, "batch_size": 32, "learning_rate": 0.01, "seeds": 2, "hint": 0.0}


def test_a_student_is_taught_at_the_cloud_by_a_run_and_by_other_releases(database: Database, blobs: BlobStore) -> None:
    first = ready_release(database, blobs, "elder")
    poor = finished_run(database, blobs, "student", epochs=0)
    release = ready_release(
        database, blobs, "taught", student_run=poor, teaching=TAUGHT, teacher_releases=["elder"], max_accuracy_drop=0.5
    )
    told, choice = release.report["teaching"], release.report["choice"]
    assert told["helped"]
    assert (len(told["distilled"]), len(told["self_taught"])) == (2, 2)
    assert told["settings"]["steps"] == 60
    assert choice["chosen"] == "distilled", (choice["sentence"], told["sentence"])
    assert choice["examples"] == told["judged"]
    taught = release.lineage["taught"]
    assert [each["release"] for each in taught["teachers"]] == [first.id]
    assert taught in [{k: v for k, v in link["facts"].items() if k != "step"} for link in release.lineage["chain"]]
    with database.read() as session:
        assert service.verify(session, blobs, release.id).ok
        blobs.path(taught["digest"]).write_bytes(b"other parameters")
        assert [p.code for p in service.verify(session, blobs, release.id).problems] == ["blob_damaged"]


def test_what_teaching_did_not_better_is_not_released(sqlite_database: Database, blobs: BlobStore) -> None:
    teacher = finished_run(sqlite_database, blobs, "teacher", epochs=0)
    release = ready_release(sqlite_database, blobs, teacher_run=teacher, teaching=TAUGHT)
    assert not release.report["teaching"]["helped"]
    assert release.report["choice"]["chosen"] == "student"


@pytest.mark.parametrize(
    ("spec", "code", "said"),
    [
        ({"teaching": {"steps": 0}, "teacher_run": "run_1"}, "invalid_teaching", "from 1 to"),
        ({"teaching": {}}, "invalid_release_spec", "who teaches"),
        ({"teaching": {}, "teacher_run": "run_1", "distilled_run": "run_2"}, "invalid_release_spec", "not both"),
        ({"teaching": {"hint": 1}, "teacher_releases": ["a"]}, "invalid_release_spec", "hides its features"),
        ({"teacher_releases": ["a"]}, "invalid_release_spec", "where there is teaching"),
    ],
)
def test_teaching_that_cannot_be_is_refused_with_the_spec(spec: dict[str, object], code: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said) as caught:
        ReleaseSpec(name="a", recipe="tiny", student_run="run_0", **spec)
    assert caught.value.code == code
