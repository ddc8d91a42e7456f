"""Runs become a sealed release: real exports, real quantization, real measurement."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_recipe import Tiny
from tiny_release import blob_of, create, finished_run, places_of, ready_release, settled, trained

from fogline_server.batch.model import BatchSpec
from fogline_server.batch.service import submit_batch
from fogline_server.blobs.store import BlobStore
from fogline_server.compression.engine import manifest_of, open_session, run
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.jobs.tables import Job
from fogline_server.registry import service
from fogline_server.registry.build import build_artifacts
from fogline_server.registry.origins import create_run_from
from fogline_server.registry.taught import Source
from fogline_server.registry.tick import tick
from fogline_server.rollouts.unlisting import unlist
from fogline_server.training.spec import RunSpec
from fogline_server.training.tables import Round, Run
from fogline_server.trust.keys import OnlineKeys
from fogline_shared import tensors
from fogline_shared.errors import Conflict, InvalidInput, NotFound
from fogline_shared.recipe import Dataset


def test_a_release_has_three_measured_variants_and_a_reasoned_choice(database: Database, blobs: BlobStore) -> None:
    distilled = finished_run(database, blobs, "student", seed=1)
    release = ready_release(database, blobs, distilled_run=distilled)
    assert release.default_variant == "student_int8"
    assert release.sealed_at is not None
    assert release.report["choice"]["chosen"] in {"student", "distilled"}
    assert release.report["choice"]["sentence"].endswith(".")
    assert [g["verdict"] for g in release.report["gates"]] == ["PASS"]
    assert set(release.report["parity"]) == {"student_fp32", "teacher_fp32"}
    for found in release.report["parity"].values():
        assert found["samples"] == 200
        assert found["max_abs_diff"] < 1e-4
        assert found["label_agreement"] == 1.0
    with database.read() as session:
        variants = {v.name: v for v in service.variants_of(session, release.id)}
        assert service.teacher_artifact(session, release.id) == variants["teacher_fp32"].digest
        # Asked for with the seal, in one transaction.
        assert session.query(Job).filter(Job.dedupe_key == f"deltas:{release.id}").one().state == "QUEUED"
    assert set(variants) == {"teacher_fp32", "student_fp32", "student_int8"}
    for variant in variants.values():
        assert variant.metrics["accuracy"] > 0.9
        assert variant.metrics["unseen"]["examples"] == 200
        assert variant.metrics["p50_us"] > 0
        assert variant.metrics["bytes"] == variant.size
    assert variants["student_int8"].metrics["agreement"] > 0.95


def test_every_artifact_gives_the_answers_its_manifest_promises(sqlite_database: Database, blobs: BlobStore) -> None:
    release = ready_release(sqlite_database, blobs)
    with sqlite_database.read() as session:
        variants = service.variants_of(session, release.id)
    for variant in variants:
        session_ = open_session(blobs.read(variant.digest))
        manifest = manifest_of(session_)
        assert (manifest.recipe, manifest.variant) == ("tiny", variant.name)
        assert manifest.classes == Tiny.classes
        assert len(manifest.known_answers) > 1
        x = np.stack([a.array(manifest.input_shape) for a in manifest.known_answers])
        assert run(session_, x).argmax(1).tolist() == [a.label for a in manifest.known_answers]


def test_a_variant_beyond_a_limit_fails_the_release_and_stays_as_evidence(
    sqlite_database: Database, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tiny, "release_limits", {"max_bytes": 100, "max_calibration_error": 0.9}, raising=False)
    student = finished_run(sqlite_database, blobs, "student")
    release = settled(sqlite_database, blobs, create(sqlite_database, student_run=student))
    assert (release.state, release.error["code"]) == ("FAILED", "artifact_bytes")
    assert release.error["message"].startswith("student_int8 is sent as")
    gates = {gate["gate"]: gate["verdict"] for gate in release.report["gates"]}
    assert gates == {"int8_accuracy_drop": "PASS", "calibration_error": "PASS", "artifact_bytes": "FAIL"}
    with sqlite_database.read() as session:
        measured = {v.name: v.metrics for v in service.variants_of(session, release.id)}
    assert 0 < measured["student_int8"]["calibration_error"] < 0.9
    # What a release asks goes before what its recipe asks.
    larger = create(sqlite_database, name="tiny-2", student_run=student, limits={"max_bytes": 100_000})
    assert settled(sqlite_database, blobs, larger).state == "READY"


def test_a_release_without_a_teacher_says_so_when_asked_for_one(sqlite_database: Database, blobs: BlobStore) -> None:
    release = ready_release(sqlite_database, blobs, teacher_run=None)
    with sqlite_database.read() as session, pytest.raises(NotFound) as error:
        service.teacher_artifact(session, release.id)
    assert error.value.code == "variant_not_found"


def test_a_withdrawn_release_serves_those_that_have_it_and_begins_nothing(
    sqlite_database: Database, blobs: BlobStore, tmp_path: Path
) -> None:
    release = ready_release(sqlite_database, blobs)
    with sqlite_database.transaction() as session:
        unlist(session, OnlineKeys(tmp_path / "keys"), release.id, now=utc_now(), actor="test")
    with sqlite_database.read() as session:
        assert service.teacher_artifact(session, release.id)
        assert service.verify(session, blobs, release.id).ok
        for begins in (
            lambda: service.ready_release(session, release.id),
            lambda: submit_batch(
                session,
                BatchSpec(release_id=release.id, input="in", output="out"),
                places=places_of(blobs),
                now=utc_now(),
                actor="test",
            ),
            lambda: create_run_from(
                session, RunSpec(recipe="tiny", size="student"), release.id, now=utc_now(), actor="test"
            ),
        ):
            with pytest.raises(Conflict) as refused:
                begins()
            assert refused.value.code == "release_unlisted"


def test_a_tick_repeated_seals_once(database: Database, blobs: BlobStore) -> None:
    release = ready_release(database, blobs)
    assert tick(database, now=utc_now()) == 0
    with database.read() as session:
        assert service.get_release(session, release.id).sealed_at == release.sealed_at


def test_verify_finds_nothing_in_an_intact_release(database: Database, blobs: BlobStore) -> None:
    release = ready_release(database, blobs)
    with database.read() as session:
        report = service.verify(session, blobs, release.id)
    assert report.ok, report.problems
    assert report.blobs_checked == 5  # three artifacts, two sets of parameters


@pytest.mark.parametrize("what", ["artifact", "params"])
def test_verify_finds_a_flipped_byte(sqlite_database: Database, blobs: BlobStore, what: str) -> None:
    release = ready_release(sqlite_database, blobs)
    with sqlite_database.read() as session:
        variant = service.get_variant(session, release.id, "student_int8")
        run_id = release.lineage["runs"]["student"]
        digest = variant.digest if what == "artifact" else session.get_one(Run, run_id).params_digest
    path = blobs.path(digest)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with sqlite_database.read() as session:
        report = service.verify(session, blobs, release.id)
    assert [(p.code, p.subject) for p in report.problems] == [
        ("blob_damaged", "student_int8" if what == "artifact" else run_id)
    ]


def test_verify_finds_a_missing_blob(sqlite_database: Database, blobs: BlobStore) -> None:
    release = ready_release(sqlite_database, blobs)
    with sqlite_database.read() as session:
        blobs.path(service.get_variant(session, release.id, "teacher_fp32").digest).unlink()
        report = service.verify(session, blobs, release.id)
    assert [(p.code, p.subject) for p in report.problems] == [("blob_not_found", "teacher_fp32")]


def test_verify_finds_a_metric_changed_behind_our_back(database: Database, blobs: BlobStore) -> None:
    release = ready_release(database, blobs)
    with database.transaction() as session:
        variant = service.get_variant(session, release.id, "student_int8")
        variant.metrics = {**variant.metrics, "accuracy": 0.5}
    with database.read() as session:
        assert {p.code for p in service.verify(session, blobs, release.id).problems} == {"seal_broken"}


def test_verify_finds_a_cohort_changed_behind_our_back(database: Database, blobs: BlobStore) -> None:
    release = ready_release(database, blobs)
    with database.transaction() as session:
        run_id = release.lineage["runs"]["student"]
        session.get_one(Round, (run_id, 1)).cohort = ["dev_a"]
    with database.read() as session:
        assert {p.code for p in service.verify(session, blobs, release.id).problems} == {"lineage_differs"}


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda lineage: {k: v for k, v in lineage.items() if k != "chain"}, "lineage_missing"),
        (lambda lineage: {**lineage, "chain": [{"facts": {"step": "round"}}]}, "lineage_missing"),
        (lambda lineage: {**lineage, "chain": [{"facts": {"step": "artifact"}, "hash": "0"}]}, "lineage_broken"),
        (lambda lineage: {k: v for k, v in lineage.items() if k != "seal"}, "seal_broken"),
        (lambda _lineage: {}, "lineage_missing"),
        (lambda lineage: {**lineage, "runs": {"student": "run_gone"}}, "lineage_differs"),
    ],
)
def test_verify_finds_a_lineage_that_is_missing_or_malformed(
    sqlite_database: Database, blobs: BlobStore, damage, code: str
) -> None:
    release = ready_release(sqlite_database, blobs, teacher_run=None)
    with sqlite_database.transaction() as session:
        row = service.get_release(session, release.id)
        row.lineage = damage(dict(row.lineage))
    with sqlite_database.read() as session:
        report = service.verify(session, blobs, release.id)
    assert not report.ok
    assert code in {p.code for p in report.problems}
    assert report.blobs_checked >= 2, "artifacts are hashed whatever the lineage looks like"


def test_a_finished_run_without_parameters_is_refused_by_what_it_lacks(
    sqlite_database: Database, blobs: BlobStore
) -> None:
    for lacking in ("params_digest", "statistics"):
        run_id = finished_run(sqlite_database, blobs, "student", **{lacking: None})
        with pytest.raises(Conflict) as error:
            create(sqlite_database, student_run=run_id)
        assert error.value.code == "run_incomplete"
        assert "SUCCEEDED run can" not in error.value.message


def test_int8_that_loses_too_much_fails_the_release(sqlite_database: Database, blobs: BlobStore) -> None:
    params, _ = trained("student")
    arrays = {k: np.array(v) for k, v in tensors.decode(params).items()}
    # The last layer's bias far above its logits: in float it cancels out, in int8 nothing else is left of them.
    name = next(reversed(arrays))
    arrays[name] += 5000.0
    blob = b"".join(bytes(b) for b in tensors.encode(arrays))
    run_id = finished_run(sqlite_database, blobs, "student", params=blob)
    release = settled(sqlite_database, blobs, create(sqlite_database, student_run=run_id))
    assert (release.state, release.error["code"]) == ("FAILED", "int8_accuracy_drop")
    assert release.report["gates"][0]["verdict"] == "FAIL"


def test_parameters_with_nan_fail_the_release_with_a_code(database: Database, blobs: BlobStore) -> None:
    model = Tiny().model("student", seed=0)
    next(model.parameters()).data[0] = float("nan")
    run_id = finished_run(database, blobs, "student", params=blob_of(model.eval()))
    release = settled(database, blobs, create(database, student_run=run_id))
    assert (release.state, release.error["code"]) == ("FAILED", "params_not_finite")


def test_parameters_of_another_architecture_fail_the_release(sqlite_database: Database, blobs: BlobStore) -> None:
    run_id = finished_run(sqlite_database, blobs, "student", params=trained("teacher")[0])
    release = settled(sqlite_database, blobs, create(sqlite_database, student_run=run_id))
    assert (release.state, release.error["code"]) == ("FAILED", "params_mismatch")


def test_a_damaged_parameter_blob_fails_the_release(sqlite_database: Database, blobs: BlobStore) -> None:
    run_id = finished_run(sqlite_database, blobs, "student")
    with sqlite_database.read() as session:
        path = blobs.path(session.get_one(Run, run_id).params_digest)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    release = settled(sqlite_database, blobs, create(sqlite_database, student_run=run_id))
    assert (release.state, release.error["code"]) == ("FAILED", "blob_damaged")


def test_runs_that_do_not_fit_are_refused_at_once(database: Database, blobs: BlobStore) -> None:
    good = finished_run(database, blobs, "student")
    teacher = finished_run(database, blobs, "teacher")
    running = finished_run(database, blobs, "student", state="RUNNING")
    foreign = finished_run(database, blobs, "student", recipe="other")

    def code(**spec: object) -> str:
        with pytest.raises((NotFound, Conflict, InvalidInput)) as error:
            create(database, **spec)
        return error.value.code

    assert code(student_run="run_none") == "run_not_found"
    assert code(student_run=running) == "run_not_finished"
    assert code(student_run=foreign) == "run_of_other_recipe"
    assert code(student_run=teacher) == "run_of_other_size"
    assert code(student_run=good, recipe="no-such-recipe") == "unknown_recipe"
    assert code(student_run=good, name="Not a name") == "invalid_name"
    assert code(student_run=good, default_variant="teacher_fp32") == "invalid_release_spec"
    create(database, student_run=good)
    assert code(student_run=good) == "release_name_taken"


def test_a_release_is_found_by_id_name_and_alias(database: Database, blobs: BlobStore) -> None:
    first = ready_release(database, blobs, "first")
    second = ready_release(database, blobs, "second")
    with database.transaction() as session:
        service.set_alias(session, "champion", first.id, now=utc_now(), actor="test")
        service.set_alias(session, "champion", "second", now=utc_now(), actor="test")
    with database.read() as session:
        for reference in (second.id, "second", "champion"):
            assert service.get_release(session, reference).id == second.id
        assert [r.id for r in service.list_releases(session, limit=1)] == [second.id]
        assert [r.id for r in service.list_releases(session, after=second.id)] == [first.id]
        assert [a.name for a in service.list_aliases(session, second.id)] == ["champion"]
        with pytest.raises(NotFound):
            service.get_release(session, "nobody")


class Emptied(Tiny):
    """A recipe whose holdout has lost its examples."""

    def holdout(self) -> Dataset:
        whole = super().holdout()
        return Dataset(x=whole.x[:0], y=whole.y[:0])


def test_nothing_is_chosen_on_a_holdout_without_examples() -> None:
    params, standardisation = trained("student")
    source = Source(params=params, standardisation=standardisation)
    with pytest.raises(InvalidInput, match="the holdout has no examples") as refused:
        build_artifacts(Emptied(), {"student": source, "distilled": source})
    assert refused.value.code == "empty_dataset"


def test_the_distilled_student_is_released_only_when_it_is_better(sqlite_database: Database, blobs: BlobStore) -> None:
    poor = finished_run(sqlite_database, blobs, "student", epochs=0)
    good = finished_run(sqlite_database, blobs, "student", epochs=6)
    one = ready_release(sqlite_database, blobs, "one", student_run=poor, distilled_run=good, max_accuracy_drop=0.5)
    two = ready_release(sqlite_database, blobs, "two", student_run=good, distilled_run=poor)
    assert one.report["choice"]["chosen"] == "distilled"
    assert two.report["choice"]["chosen"] == "student"
