"""Runs and releases of the tiny recipe, for tests that need a finished one."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
from tiny_recipe import Tiny

from fogline_recipes import parameters
from fogline_server.batch import jobs as batch
from fogline_server.batch.places import Places
from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import new_id, utc_now
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.jobs.engine import Engine
from fogline_server.jobs.tables import Job
from fogline_server.registry import service
from fogline_server.registry.jobs import KINDS as REGISTRY_KINDS
from fogline_server.registry.model import ReleaseSpec
from fogline_server.registry.tables import Release
from fogline_server.registry.tick import tick
from fogline_server.search.jobs import KINDS as SEARCH_KINDS
from fogline_server.training.tables import Round, Run
from fogline_shared import tensors
from fogline_shared.recipe import Dataset, Standardisation

NOBODY = "redis://127.0.0.1:1/0"


@cache
def trained(size: str, seed: int = 0, epochs: int = 6) -> tuple[bytes, Standardisation]:
    """Parameters (a safetensors blob) and standardisation after centralised training on eight devices' data."""
    recipe = Tiny()
    parts = [recipe.device_data({"seed": str(i)}) for i in range(8)]
    data = Dataset(x=np.concatenate([p.x for p in parts]), y=np.concatenate([p.y for p in parts]))
    standardisation = recipe.channel_sums(data).standardisation()
    model = recipe.model(size, seed=seed)
    if epochs:
        recipe.train(model, data, standardisation, replace(recipe.plans[size], epochs=epochs))
    return blob_of(model), standardisation


def blob_of(model: object) -> bytes:
    """A model's parameters as they travel."""
    return b"".join(bytes(b) for b in tensors.encode(parameters.read(model)))


def finished_run(
    db: Database, blobs: BlobStore, size: str, *, seed: int = 0, epochs: int = 6, params: bytes | None = None, **values
) -> str:
    """The id of a SUCCEEDED run of one round whose parameters were trained here."""
    made, standardisation = trained(size, seed, epochs)
    digest = blobs.put([params if params is not None else made]).digest
    now, run_id = utc_now(), new_id("run")
    columns = {
        "recipe": "tiny",
        "size": size,
        "state": "SUCCEEDED",
        "spec": {},
        "rounds_total": 1,
        "rounds_done": 1,
        "statistics": standardisation.as_json(),
        "params_digest": digest,
        "created_at": now,
    }
    with db.transaction() as session:
        session.add(Run(id=run_id, **{**columns, **values}))
        session.flush()
        session.add(
            Round(
                run_id=run_id,
                number=1,
                state="COMMITTED",
                cohort=["dev_a", "dev_b"],
                params_out=digest,
                metrics={},
                started_at=now,
            )
        )
    return run_id


def places_of(blobs: BlobStore) -> Places:
    """A test's own folder, in which its blobs lie."""
    return Places.of(blobs._root.parent)


def engine_of(db: Database, blobs: BlobStore, *, lease_s: float = 10) -> Engine:
    """An engine of the registry's, the search's and batch's kinds; rings reach nobody, jobs are executed by the caller."""
    kinds = {kind.name: kind for kind in (*REGISTRY_KINDS, *SEARCH_KINDS, *batch.kinds(places_of(blobs)))}
    return Engine(db, blobs, Doorbell(NOBODY), kinds=kinds, lease_s=lease_s, ring=lambda *_: None, retry_base_s=0.01)


def run_all(engine: Engine) -> None:
    """Execute queued jobs until there are none."""
    while True:
        with engine.db.read() as session:
            queued = session.query(Job.id).where(Job.state == "QUEUED").order_by(Job.id).all()
        if not queued:
            return
        for (job_id,) in queued:
            engine.execute(job_id)


def settled(db: Database, blobs: BlobStore, release_id: str) -> Release:
    """Run a release's jobs and the tick; the release as it is then."""
    run_all(engine_of(db, blobs))
    tick(db, now=utc_now())
    with db.read() as session:
        return service.get_release(session, release_id)


def create(db: Database, **spec: object) -> str:
    """The id of a BUILDING release of the tiny recipe."""
    with db.transaction() as session:
        given = ReleaseSpec(**{"name": "tiny-1", "recipe": "tiny", **spec})
        return service.create_release(session, given, now=utc_now(), actor="test").id


def ready_release(db: Database, blobs: BlobStore, name: str = "tiny-1", **spec) -> Release:
    """A release built from fresh runs, READY."""
    spec.setdefault("teacher_run", finished_run(db, blobs, "teacher"))
    spec.setdefault("student_run", finished_run(db, blobs, "student"))
    release = settled(db, blobs, create(db, name=name, **spec))
    assert release.state == "READY", release.error
    return release
