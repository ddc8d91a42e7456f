"""Whatever goes wrong with a release has a name, and the release before it stays as it was: sealed, whole, champion."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_models import linear
from tiny_recipe import Tiny, signals
from tiny_release import blob_of, finished_run, ready_release, settled

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.registry import service
from fogline_server.registry.model import ReleaseSpec
from fogline_server.registry.tables import Release
from fogline_server.training.tables import Run
from fogline_shared.errors import FoglineError
from fogline_shared.recipe import Dataset


@pytest.fixture
def before(sqlite_database: Database, blobs: BlobStore) -> Release:
    """A release that serves."""
    return champion(sqlite_database, blobs)


def champion(db: Database, blobs: BlobStore) -> Release:
    release = ready_release(db, blobs, "before", teacher_run=None)
    with db.transaction() as session:
        service.set_alias(session, "champion", release.id, now=utc_now(), actor="test")
    return release


def attempted(db: Database, blobs: BlobStore, *, run: str | None = None, **spec: object) -> str | None:
    """Ask for a release and build it; the code it is refused or fails with, None when it is READY."""
    run = run or finished_run(db, blobs, "student", seed=1)
    try:
        with db.transaction() as session:
            given = ReleaseSpec(name="after", recipe="tiny", student_run=run, **spec)
            release_id = service.create_release(session, given, now=utc_now(), actor="test").id
    except FoglineError as refused:
        return refused.code
    release = settled(db, blobs, release_id)
    assert release.state == ("FAILED" if release.error else "READY")
    return release.error and release.error["code"]


def assert_untouched(db: Database, blobs: BlobStore, before: Release) -> None:
    with db.read() as session:
        now = service.get_release(session, "champion")
        assert (now.id, now.state, now.lineage) == (before.id, "READY", before.lineage)
        assert service.verify(session, blobs, now.id).ok


STUDENT = Tiny.model


class Changed(torch.nn.Module):
    """The student, then something else."""

    def __init__(self, then: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.student = STUDENT(Tiny(), "student", seed=0)
        self.then = then

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.then(self.student(x))


MODELS = {
    "answers NaN": (lambda y: y * 0 / 0, "params_not_finite"),
    "needs what ONNX lacks": (lambda y: y + torch.linalg.svdvals(y).sum(), "not_exportable"),
    "is sound": (lambda y: 2 * y, None),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_model_that(sqlite_database: Database, blobs: BlobStore, before: Release, monkeypatch, case: str) -> None:
    then, code = MODELS[case]
    monkeypatch.setattr(Tiny, "model", lambda _self, _size, seed: Changed(then))
    params = blob_of(Changed(then))
    run = finished_run(sqlite_database, blobs, "student", params=params)
    assert attempted(sqlite_database, blobs, run=run) == code
    monkeypatch.undo()
    assert_untouched(sqlite_database, blobs, before)


def one_class(_self: Tiny) -> Dataset:
    found = signals(10_001, 200)
    chosen = found.y == 2
    return Dataset(x=found.x[chosen], y=found.y[chosen])


FINETUNE = {"small": [{"method": "finetune", "options": {"steps": 5}}]}
DATA = {
    "a calibration set of one class": ("holdout", one_class, {}, "one_class_calibration"),
    "an empty transfer set": ("transfer", lambda _: signals(1, 4).x[:0], {"chains": FINETUNE}, "no_transfer_data"),
    "a transfer set of NaN": ("transfer", lambda _: signals(1, 8).x * np.nan, {"chains": FINETUNE}, "invalid_dataset"),
}


@pytest.mark.parametrize("case", DATA)
def test_a_recipe_with(sqlite_database: Database, blobs: BlobStore, before: Release, monkeypatch, case: str) -> None:
    method, made, spec, code = DATA[case]
    monkeypatch.setattr(Tiny, method, made)
    assert attempted(sqlite_database, blobs, max_accuracy_drop=1.0, **spec) == code
    monkeypatch.undo()
    assert_untouched(sqlite_database, blobs, before)


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file of this process may grow beyond four kilobytes: what a full disk is to the blob store."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_store_that_is_full(postgres_url: str, blobs: BlobStore, request: pytest.FixtureRequest) -> None:
    db = Database(postgres_url)  # whose files are another process's
    before = champion(db, blobs)
    run = finished_run(db, blobs, "student", seed=1)
    request.getfixturevalue("small_files")
    assert attempted(db, blobs, run=run) == "disk_full"
    assert_untouched(db, blobs, before)
    db.dispose()


def test_a_store_that_lost_a_file(sqlite_database: Database, blobs: BlobStore, before: Release) -> None:
    run = finished_run(sqlite_database, blobs, "student", seed=1)
    with sqlite_database.read() as session:
        blobs.path(str(session.get_one(Run, run).params_digest)).unlink()
    assert attempted(sqlite_database, blobs, run=run) == "blob_not_found"
    assert_untouched(sqlite_database, blobs, before)


def test_an_imported_file_that_is_another_one_by_now(
    sqlite_database: Database, blobs: BlobStore, before: Release, tmp_path: Path
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(linear(weight=2.0))
    with sqlite_database.transaction() as session:
        digest = blobs.put([linear()]).digest
        release_id = service.import_release(
            session, blobs, name="after", digest=digest, like_release_id=before.id, now=utc_now(), actor="test"
        ).id
    place = blobs.path(digest)
    place.unlink()
    place.symlink_to(other)
    release = settled(sqlite_database, blobs, release_id)
    assert (release.state, release.error["code"]) == ("FAILED", "blob_damaged")
    assert_untouched(sqlite_database, blobs, before)
