"""Further variants of a release by chains of methods: measured, one of them the default, or left out for a reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sqlalchemy import select
from tiny_recipe import Tiny, signals
from tiny_release import create, engine_of, finished_run, ready_release, run_all, settled

from fogline_server.blobs.store import BlobStore
from fogline_server.compression.chain import Chain
from fogline_server.compression.engine import manifest_of, open_session
from fogline_server.compression.front import Limits
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.db.events import latest_events
from fogline_server.jobs.tables import Job
from fogline_server.registry import left_out, service
from fogline_server.registry.model import ReleaseSpec
from fogline_server.registry.picking import choose_variant
from fogline_server.registry.tick import tick
from fogline_server.rollouts import store
from fogline_server.storage import holders
from fogline_shared.errors import InvalidInput, NotFound
from fogline_shared.recipe import Dataset

CHAINS = {
    "small": Chain.parse("sparse_n_m:steps=40,int8_static").as_json(),
    "packed": Chain.parse("weight_only:bits=8").as_json(),
}


def test_chains_become_measured_variants_and_one_may_be_the_default(
    sqlite_database: Database, blobs: BlobStore
) -> None:
    release = ready_release(
        sqlite_database, blobs, teacher_run=None, chains=CHAINS, default_variant="packed", max_accuracy_drop=0.5
    )
    assert release.default_variant == "packed"
    assert [g["gate"] for g in release.report["gates"]] == ["int8_accuracy_drop", *["variant_accuracy_drop"] * 2]
    with sqlite_database.read() as session:
        variants = {v.name: v for v in service.variants_of(session, release.id)}
        chosen, forms = choose_variant(
            session, release.id, Limits(max_bytes=variants["student_int8"].metrics["bytes_zstd"] - 1)
        )
    assert {"student_fp32", "student_int8"} <= set(chosen.refused)
    assert (chosen.taken.name in {"small", "packed"}, len(forms)) == (True, 4)
    assert set(variants) == {"student_fp32", "student_int8", "small", "packed"}
    assert variants["packed"].metrics["agreement"] > 0.95
    assert variants["small"].metrics["bytes_zstd"] < variants["student_int8"].metrics["bytes_zstd"]
    manifest = manifest_of(open_session(blobs.read(variants["small"].digest)))
    assert (manifest.variant, manifest.classes) == ("small", Tiny.classes)


RUINED = Chain.parse("sparse_magnitude:sparsity=0.99:rounds=1:steps=0").as_json()
HALF = Chain.parse("float16").as_json()


def test_a_chain_that_loses_too_much_is_left_out_and_stays_as_evidence(database: Database, blobs: BlobStore) -> None:
    release = ready_release(database, blobs, teacher_run=None, chains={"ruined": RUINED, "half": HALF})
    verdicts = {(gate["variant"], gate["gate"]): gate["verdict"] for gate in release.report["gates"]}
    assert verdicts == {
        ("student_int8", "int8_accuracy_drop"): "PASS",
        ("ruined", "variant_accuracy_drop"): "FAIL",
        ("half", "variant_accuracy_drop"): "PASS",
    }
    (left,) = left_out.of_release(release)
    assert (left.name, left.code) == ("ruined", "variant_accuracy_drop")
    assert left.message.startswith("ruined has")
    assert left.metrics["accuracy"] < 0.9
    assert blobs.size(left.digest) == left.size
    with database.read() as session:
        assert {v.name for v in service.variants_of(session, release.id)} == {"student_fp32", "student_int8", "half"}
        assert left.digest in holders.needed(session)
        with pytest.raises(NotFound, match="built without 'ruined': variant_accuracy_drop: ruined has") as refused:
            store.artifact(session, release.id, "ruined")
        assert refused.value.code == "variant_left_out"
        chosen, forms = choose_variant(session, release.id, Limits())
        assert "ruined" not in {form.name for form in forms}
        assert chosen.taken.name != "ruined"
        assert [event.data["variant"] for event in latest_events(session, kind="release.variant_left_out")] == [
            "ruined"
        ]


def test_the_seal_covers_what_was_left_out(sqlite_database: Database, blobs: BlobStore) -> None:
    release = ready_release(sqlite_database, blobs, teacher_run=None, chains={"ruined": RUINED})
    (left,) = left_out.of_release(release)

    def found() -> list[tuple[str, str]]:
        with sqlite_database.read() as session:
            return [(p.code, p.subject) for p in service.verify(session, blobs, release.id).problems]

    assert found() == []
    path, honest = blobs.path(left.digest), blobs.read(left.digest)
    path.chmod(0o600)
    path.write_bytes(b"better weights")
    assert found() == [("blob_damaged", "ruined")]
    path.write_bytes(honest)
    with sqlite_database.transaction() as session:
        row = service.get_release(session, release.id)
        row.report = {**row.report, "left_out": {}}
    assert found() == [("seal_broken", "release")]


def test_what_a_chain_raises_or_stumbles_over_is_its_own_failure(
    sqlite_database: Database, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: Tiny, x: torch.Tensor, _generator: torch.Generator) -> torch.Tensor:
        raise ValueError("a slip of the recipe's author")

    monkeypatch.setattr(Tiny, "augment", broken)
    chains = {
        "pruned": Chain.parse("prune_channels:rounds=1:steps=1").as_json(),
        "tuned": Chain.parse("finetune:steps=1").as_json(),
        "half": HALF,
    }
    student = finished_run(sqlite_database, blobs, "student")
    release = ready_release(sqlite_database, blobs, teacher_run=None, student_run=student, chains=chains)
    left = {each.name: each for each in left_out.of_release(release)}
    assert {name: each.code for name, each in left.items()} == {"pruned": "not_prunable", "tuned": "chain_crashed"}
    assert left["tuned"].message == "ValueError: a slip of the recipe's author"
    assert {each.digest for each in left.values()} == {None}
    with sqlite_database.read() as session:
        assert service.verify(session, blobs, release.id).ok
        assert [v.name for v in service.variants_of(session, release.id)] == ["half", "student_fp32", "student_int8"]
    # What devices get unless told otherwise must be there.
    wanted = create(sqlite_database, name="tiny-2", student_run=student, chains=chains, default_variant="tuned")
    failed = settled(sqlite_database, blobs, wanted)
    assert (failed.state, failed.error["code"]) == ("FAILED", "chain_crashed")


def test_a_variant_that_cannot_be_measured_is_left_out(sqlite_database: Database, blobs: BlobStore) -> None:
    student = finished_run(sqlite_database, blobs, "student")
    release_id = create(sqlite_database, student_run=student, chains={"half": HALF})
    engine = engine_of(sqlite_database, blobs)
    with sqlite_database.read() as session:
        (quantize,) = session.scalars(select(Job.id).where(Job.kind == "quantize"))
    engine.execute(quantize)
    with sqlite_database.read() as session:
        blobs.path(service.get_variant(session, release_id, "half").digest).unlink()
    run_all(engine)
    signed: list[str] = []
    tick(sqlite_database, now=utc_now(), sealed=lambda _, release, variants: signed.extend(v.name for v in variants))
    assert signed == ["student_fp32", "student_int8"]
    with sqlite_database.read() as session:
        release = service.get_release(session, release_id)
    assert [(each.name, each.code) for each in left_out.of_release(release)] == [("half", "blob_not_found")]


@pytest.mark.parametrize(
    ("holdout", "transfer", "chain", "code"),
    [
        ("some", None, "prune_channels,int8_static", "no_transfer_data"),
        ("some", "none", "low_rank,finetune", "no_transfer_data"),
        ("some", "short", "finetune", "invalid_dataset"),
        ("some", None, "prune_channels:steps=0,float16", ""),
        ("one class", "some", "float16", "one_class_calibration"),
        (None, None, "float16", "no_calibration_data"),
        (None, "some", "finetune,int8_static", ""),
    ],
)
def test_a_chain_that_lacks_examples_is_refused_when_it_is_asked_for(
    sqlite_database: Database,
    blobs: BlobStore,
    monkeypatch: pytest.MonkeyPatch,
    holdout: str | None,
    transfer: str | None,
    chain: str,
    code: str,
) -> None:
    labelled, unlabelled = signals(1, 40), signals(2, 40).x
    one = Dataset(x=labelled.x, y=np.zeros_like(labelled.y))
    monkeypatch.setattr(Tiny, "holdout", lambda _: {"some": labelled, "one class": one}.get(str(holdout)))
    found = {"some": unlabelled, "none": unlabelled[:0], "short": unlabelled[:, :, :9]}.get(str(transfer))
    monkeypatch.setattr(Tiny, "transfer", lambda _: found)
    student = finished_run(sqlite_database, blobs, "student")
    refused = ""
    try:
        create(sqlite_database, student_run=student, chains={"small": Chain.parse(chain).as_json()})
    except InvalidInput as error:
        refused = error.code
    assert refused == code


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"chains": {"student_int8": [{"method": "float16"}]}}, "invalid_release_spec"),
        ({"chains": {f"v{i}": [{"method": "float16"}] for i in range(9)}}, "invalid_release_spec"),
        ({"chains": {"Big": [{"method": "float16"}]}}, "invalid_name"),
        ({"chains": {"small": []}}, "invalid_chain"),
        ({"chains": {"small": [{"method": "int8_static"}, {"method": "qat"}]}}, "chain_order"),
        ({"default_variant": "small"}, "invalid_release_spec"),
    ],
)
def test_chains_that_cannot_be_are_refused_with_the_spec(spec: dict[str, object], code: str) -> None:
    with pytest.raises(InvalidInput) as error:
        ReleaseSpec(name="a", recipe="tiny", student_run="run_1", **spec)
    assert error.value.code == code
