"""Mark and sweep over both tiers: what a row needs and what is young stays, the rest goes."""

from __future__ import annotations

import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from fogline_server.blobs.cold import ColdTier
from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.db.events import latest_events
from fogline_server.jobs.tables import Job
from fogline_server.registry.tables import Delta, Release, Variant
from fogline_server.rollouts.tables import Rollout
from fogline_server.storage import service
from fogline_shared import tensors

GRACE_S = 3600.0
BODY = np.random.default_rng(0).normal(size=20_000)


@pytest.fixture(params=["folder", "tiers"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "folder":
        return BlobStore(tmp_path / "hot")
    return BlobStore(tmp_path / "hot", cold=ColdTier(f"memory://{uuid.uuid4().hex}"), hot_bytes=10**6)


def put(store: BlobStore, seed: int) -> str:
    """A model that shares its body with every other."""
    return store.put(tensors.encode({"body": BODY, "head": np.full(1000, seed, np.float32)})).digest


def collect(db: Database, store: BlobStore, *, later_s: float = 2 * GRACE_S, **given) -> service.Collection:
    options = {"dry_run": False, "limit": 100} | given
    return service.collect(db, store, now=utc_now().timestamp() + later_s, grace_s=GRACE_S, **options)


def keep(db: Database, digest: str, *, name: str = "r") -> None:
    with db.transaction() as session:
        session.add(
            Release(id=name, name=name, recipe="tiny", state="READY", lineage={}, report={}, created_at=utc_now())
        )
        session.flush()
        session.add(Variant(release_id=name, name="student", digest=digest, size=1))


def test_what_nobody_needs_goes_once_it_is_old_enough(sqlite_database: Database, store: BlobStore) -> None:
    kept, gone = put(store, 1), put(store, 2)
    keep(sqlite_database, kept)
    assert collect(sqlite_database, store, later_s=0).freed.blobs == 0
    told = collect(sqlite_database, store, dry_run=True)
    assert store.exists(gone)
    done = collect(sqlite_database, store)
    assert done.freed == told.freed
    assert (done.freed.blobs, done.more, store.exists(gone)) == (1, False, False)
    store._place(kept).unlink() if store.cold is not None else None
    assert np.array_equal(tensors.decode(store.read(kept))["body"], BODY)
    assert collect(sqlite_database, store) == service.Collection(dry_run=False, freed=service.Freed())
    with sqlite_database.read() as session:
        assert [event.data["blobs"] for event in latest_events(session, kind="storage.collected")] == [1]


def test_no_more_than_the_limit_goes(sqlite_database: Database, store: BlobStore) -> None:
    for seed in range(3):
        put(store, seed)
    assert [collect(sqlite_database, store, limit=2).freed.blobs for _ in range(2)] == [2, 1]


def test_what_a_running_job_has_written_waits_for_its_rows(sqlite_database: Database, store: BlobStore) -> None:
    digest = put(store, 1)
    with sqlite_database.transaction() as session:
        started = utc_now() - timedelta(seconds=60)
        job = Job(id="j", kind="x", queue="q", spec={}, state="RUNNING", created_at=started, started_at=started)
        session.add(job)
    assert collect(sqlite_database, store).freed.blobs == 0
    with sqlite_database.transaction() as session:
        session.get_one(Job, "j").state = "SUCCEEDED"
    assert collect(sqlite_database, store).freed.blobs == 1
    assert not store.exists(digest)


def test_a_row_that_comes_after_the_mark_keeps_its_blob(
    sqlite_database: Database, store: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, remove = put(store, 1), store.remove

    def late(*args, **options):
        keep(sqlite_database, digest)
        return remove(*args, **options)

    monkeypatch.setattr(store, "remove", late)
    assert collect(sqlite_database, store).freed.blobs == 0
    assert store.read(digest)


def test_a_blob_that_was_written_again_is_young(sqlite_database: Database, store: BlobStore) -> None:
    digest = put(store, 1)
    os.utime(store._place(digest), (0, 0))
    put(store, 1)
    assert collect(sqlite_database, store, later_s=0).freed.blobs == 0


def test_the_standing_tells_kinds_and_what_is_free(sqlite_database: Database, store: BlobStore) -> None:
    model, delta, stray = put(store, 1), store.put([b"delta"]).digest, store.put([b"stray"]).digest
    keep(sqlite_database, model)
    with sqlite_database.transaction() as session:
        row = {"target_digest": model, "base_digest": "0" * 64, "digest": delta}
        session.add(Delta(**row, size=5, target_size=1, created_at=datetime.now(UTC)))
    told = service.standing(sqlite_database, store)
    found = {
        share.kind: (share.blobs, share.hot_bytes, share.free_blobs, share.free_hot_bytes) for share in told.shares
    }
    size = len(store.read(model))
    assert found == {"artifact": (1, size, 0, 0), "delta": (1, 5, 0, 0), "unknown": (1, 5, 1, 5)}
    assert stray in store.held()
    assert (told.chunk_bytes > 0) is (store.cold is not None)


def test_the_artifacts_of_a_rollout_are_brought_back_before_devices_ask(
    sqlite_database: Database, store: BlobStore
) -> None:
    if store.cold is None:
        return
    digests = {state: put(store, seed) for seed, state in enumerate(("RUNNING", "ROLLED_BACK"))}
    for name, (state, digest) in enumerate(digests.items()):
        store._place(digest).unlink()
        keep(sqlite_database, digest, name=f"r{name}")
        row = {"variant": "student", "artifact_digest": digest, "artifact_size": 1, "recipe": "tiny", "plan": {}}
        with sqlite_database.transaction() as session:
            session.add(Rollout(id=state, release_id=f"r{name}", state=state, created_at=utc_now(), **row))
    assert service.prefetch(sqlite_database, store) == 1
    assert set(store.held()) == {digests["RUNNING"]}
