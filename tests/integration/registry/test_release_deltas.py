"""A release gets deltas from what devices run, from the champion, and from nothing; each device the way that suits it."""

from __future__ import annotations

import io

import pytest
from artifacts import artifact
from tiny_release import engine_of, run_all

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.jobs.tables import Job
from fogline_server.registry import service
from fogline_server.registry.deltas import service as deltas
from fogline_server.registry.tables import Release, Variant
from fogline_shared import delta
from fogline_shared.delta import NOTHING

INT8, TEACHER = "student_int8", "teacher_fp32"


class Registry:
    """Releases whose artifacts were made here, and devices that run them."""

    def __init__(self, db: Database, blobs: BlobStore) -> None:
        self.db, self.blobs = db, blobs

    def release(self, name: str, scale: float) -> str:
        """A READY release, its deltas built; the digest of its student."""
        students, teachers = (artifact(scale=scale, shape=(3, width)) for width in (64, 128))
        stored = {INT8: self.blobs.put([students]), TEACHER: self.blobs.put([teachers])}
        with self.db.transaction() as session:
            now = utc_now()
            row = Release(id=name, name=name, recipe="toy", state="READY", lineage={}, report={}, created_at=now)
            session.add(row)
            session.flush()
            session.add_all(
                Variant(release_id=name, name=variant, digest=blob.digest, size=blob.size)
                for variant, blob in stored.items()
            )
            session.flush()
            deltas.ask(session, row, now=now)
            deltas.ask(session, row, now=now)
        run_all(engine_of(self.db, self.blobs))
        return stored[INT8].digest

    def runs(self, number: int, digest: str, state: str = "ACTIVE") -> None:
        """One more device, which runs this artifact."""
        facts = {"tags": [], "attributes": {}, "recipes": [], "active_digest": digest, "created_at": utc_now()}
        with self.db.transaction() as session:
            session.add(Device(id=f"dev_{number}", name=f"watch-{number}", node_id=number, state=state, **facts))


@pytest.fixture
def registry(sqlite_database: Database, blobs: BlobStore) -> Registry:
    return Registry(sqlite_database, blobs)


def test_deltas_lead_from_what_devices_run_and_from_the_champion(registry: Registry) -> None:
    first, second, third = (registry.release(f"v{i}", 5.0 + i) for i in (1, 2, 3))
    registry.runs(1, first)
    registry.runs(2, third, state="REVOKED")
    with registry.db.transaction() as session:
        service.set_alias(session, "champion", "v2", now=utc_now(), actor="test")
    fourth = registry.release("v4", 9.0)
    with registry.db.read() as session:
        rows = deltas.of_release(session, "v4")
        assert {(variant.name, row.base_digest) for variant, row in rows} == {
            (INT8, d) for d in (NOTHING, first, second)
        }
        assert set(deltas.names_of(session, [first, second]).values()) == {"v1", "v2"}
        assert [job.state for job in session.query(Job).filter(Job.kind == deltas.KIND)] == ["SUCCEEDED"] * 4
        assert deltas.wanted(session, "v4") == []
        size = len(registry.blobs.read(fourth))
        (step,) = deltas.way(session, fourth, size, [first])
        (packed,) = deltas.way(session, fourth, size, [third])
        assert deltas.way(session, fourth, packed.size, [third]) == []
        assert deltas.leads_to(session, step.digest, fourth)
        assert not deltas.leads_to(session, step.digest, third)
    assert (step.base, packed.base) == (first, NOTHING)
    assert step.size < packed.size < step.target_size == size
    made = io.BytesIO()
    base, blob = (io.BytesIO(registry.blobs.read(digest)) for digest in (first, step.digest))
    delta.apply(blob, base, made, digest=fourth, size=size)
    assert made.getvalue() == registry.blobs.read(fourth)


def test_a_base_whose_bytes_are_damaged_costs_its_own_delta_only(registry: Registry) -> None:
    first = registry.release("v1", 5.0)
    registry.runs(1, first)
    place = registry.blobs.path(first)
    place.chmod(0o600)
    place.write_bytes(b"damaged")
    registry.release("v2", 6.0)
    with registry.db.read() as session:
        job = session.query(Job).filter(Job.dedupe_key == "deltas:v2").one()
        skipped = {f"{INT8} from {first[:12]}": "blob_damaged"}
        assert (job.state, job.result["skipped"]) == ("SUCCEEDED", skipped)
        assert [row.base_digest for _, row in deltas.of_release(session, "v2")] == [NOTHING]
