"""Foreign ONNX files: taken in after a look in another process, or refused with a code."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from foreign_models import LINEAR, elsewhere, linear, model, weights
from tiny_recipe import Tiny
from tiny_release import ready_release, settled

from fogline_server.blobs.store import BlobStore
from fogline_server.compression.engine import manifest_of, open_session, run
from fogline_server.compression.stamp import without_manifest, write_manifest
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.registry import service
from fogline_server.registry.tables import Release
from fogline_shared.errors import Conflict, NotFound


def take_in(
    db: Database, blobs: BlobStore, content: bytes, *, like: Release | None = None, name: str = "foreign"
) -> Release:
    digest = blobs.put([content]).digest
    with db.transaction() as session:
        release_id = service.import_release(
            session,
            blobs,
            name=name,
            digest=digest,
            like_release_id=like.id if like else None,
            now=utc_now(),
            actor="test",
        ).id
    return settled(db, blobs, release_id)


def artifact(db: Database, blobs: BlobStore, release: Release, variant: str = "student_fp32") -> bytes:
    with db.read() as session:
        return blobs.read(service.get_variant(session, release.id, variant).digest)


def test_a_file_with_a_manifest_becomes_a_sealed_release(database: Database, blobs: BlobStore) -> None:
    whole = artifact(database, blobs, ready_release(database, blobs))
    release = take_in(database, blobs, whole)
    assert (release.state, release.recipe, release.default_variant) == ("READY", "tiny", "student_fp32")
    assert release.report["imported"] == {"manifest": "kept"}
    assert artifact(database, blobs, release) == whole
    with database.read() as session:
        assert service.verify(session, blobs, release.id).ok
        assert service.get_variant(session, release.id, "student_fp32").metrics["accuracy"] > 0.9


def test_a_file_without_one_takes_it_from_the_release_it_is_like(sqlite_database: Database, blobs: BlobStore) -> None:
    like = ready_release(sqlite_database, blobs)
    release = take_in(sqlite_database, blobs, linear(), like=like)
    assert (release.state, release.default_variant) == ("READY", "student_int8")
    manifest = manifest_of(open_session(artifact(sqlite_database, blobs, release, "student_int8")))
    assert (manifest.input_name, manifest.output_name) == ("pixels", "answer")
    with sqlite_database.read() as session:
        # Bad, but that is for rollout gates to find: what was measured is on record.
        assert service.get_variant(session, release.id, "student_int8").metrics["accuracy"] < 0.6


def test_a_file_without_one_and_like_nothing_is_refused(sqlite_database: Database, blobs: BlobStore) -> None:
    release = take_in(sqlite_database, blobs, linear())
    assert (release.state, release.error["code"]) == ("FAILED", "no_manifest")


def not_a_number() -> bytes:
    return linear(weight=float("nan"))


def truncated() -> bytes:
    return linear()[:200]


def external() -> bytes:
    return model(LINEAR, [elsewhere(weights())])


def unsorted() -> bytes:
    proto = onnx.load_from_string(linear())
    nodes = list(proto.graph.node)[::-1]
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    return proto.SerializeToString()


REFUSED = {
    "text": (lambda: b"this is not a model" * 50, "not_onnx"),
    "empty": (lambda: b"", "not_onnx"),
    "truncated": (truncated, "not_onnx"),
    "unsorted graph": (unsorted, "not_onnx"),
    "weights elsewhere": (external, "external_data"),
    "custom operator": (lambda: linear(domain="com.evil"), "foreign_operators"),
    "other input shape": (lambda: linear(6 * 31), "wrong_signature"),
    "other classes": (lambda: linear(classes=5), "wrong_signature"),
    "NaN weights": (not_a_number, "logits_not_finite"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_refused_with_its_code(sqlite_database: Database, blobs: BlobStore, case: str) -> None:
    make, code = REFUSED[case]
    like = ready_release(sqlite_database, blobs)
    release = take_in(sqlite_database, blobs, make(), like=like)
    assert (release.state, release.error["code"]) == ("FAILED", code)


def test_a_manifest_of_another_model_is_refused(sqlite_database: Database, blobs: BlobStore) -> None:
    good = artifact(sqlite_database, blobs, ready_release(sqlite_database, blobs))
    manifest = manifest_of(open_session(good))
    other = write_manifest(linear(), manifest)
    assert take_in(sqlite_database, blobs, other, name="a").error["code"] == "wrong_signature"
    worse = onnx.load_from_string(good)
    for tensor in worse.graph.initializer:  # the same graph, its last bias turned over
        if len(tensor.dims) == 1 and tensor.dims[0] == 4:
            tensor.raw_data = np.array([50, -50, 50, -50], np.float32).tobytes()
    release = take_in(sqlite_database, blobs, worse.SerializeToString(), name="b")
    assert release.error["code"] == "known_answers_differ"


def test_what_is_wrong_at_once_is_refused_at_once(database: Database, blobs: BlobStore) -> None:
    def code(digest: str, like: str | None = None, name: str = "foreign") -> str:
        with pytest.raises((NotFound, Conflict)) as error, database.transaction() as session:
            service.import_release(
                session, blobs, name=name, digest=digest, like_release_id=like, now=utc_now(), actor="test"
            )
        return error.value.code

    there = blobs.put([b"x"]).digest
    assert code("0" * 64) == "blob_not_found"
    assert code(there, like="nobody") == "release_not_found"
    ready_release(database, blobs, "taken")
    assert code(there, name="taken") == "release_name_taken"


def test_a_plain_export_taken_in_again_answers_alike(sqlite_database: Database, blobs: BlobStore) -> None:
    like = ready_release(sqlite_database, blobs, chains={"half": [{"method": "float16"}]})
    for variant in ("student_int8", "half"):
        whole = artifact(sqlite_database, blobs, like, variant)
        release = take_in(sqlite_database, blobs, without_manifest(whole), like=like, name=f"again-{variant}")
        assert release.state == "READY", release.error
        again = artifact(sqlite_database, blobs, release, release.default_variant)
        x = Tiny().holdout().x
        assert np.array_equal(run(open_session(again), x), run(open_session(whole), x))


def test_an_export_of_any_variant_taken_in_again_is_the_same_file(sqlite_database: Database, blobs: BlobStore) -> None:
    release = ready_release(sqlite_database, blobs, chains={"half": [{"method": "float16"}]})
    whole = artifact(sqlite_database, blobs, release, "half")
    again = take_in(sqlite_database, blobs, whole)
    assert (again.state, again.default_variant) == ("READY", "half")
    assert artifact(sqlite_database, blobs, again, "half") == whole
