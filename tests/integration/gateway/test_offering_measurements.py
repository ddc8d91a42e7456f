"""Measurements over the gateway: offered to whom was asked, readable by them, answered once, by nobody else, late or not."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import grpc
import pytest
from agent_plant import online_keys
from agent_process import Cloud, digest
from artifacts import artifact
from edge import RawDevice, code_of

from fogline_server.db.base import utc_now
from fogline_server.registry.deltas import service as deltas
from fogline_server.registry.deltas.build import build
from fogline_server.registry.deltas.service import Pair
from fogline_server.registry.measurements import asking
from fogline_server.registry.measurements.model import MeasurementState, Request
from fogline_server.registry.tables import Measurement, Variant
from fogline_shared.delta import VERSION
from fogline_shared.measurement import Subject
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.protocol import TaskOffer

__all__ = ["online_keys"]

V1, V2 = (artifact(scale=scale, shape=(3, 64)) for scale in (5.0, 5.5))
FIGURES = {
    "p50_us": 12.5,
    "p99_us": 40,
    "load_ms": 3.1,
    "memory_bytes": 60 << 20,
    "size": len(V2),
    "runs": 300,
    "engine": "onnxruntime_cpu",
    "machine": "a board",
}


class Asked:
    """A release of ``V2``, whose delta from ``V1`` is stored; :meth:`ask` has a device measure it."""

    def __init__(self, db, blobs, keys) -> None:
        self.db = db
        self.target = Cloud(db, blobs, keys).publish(V2)
        self.delta = blobs.put([build(V1, V2)]).digest
        pair = Pair(variant=self.target.variant, base=digest(V1), target=self.target.digest)
        with db.transaction() as session:
            session.add(
                Variant(
                    release_id=self.target.release_id,
                    name=self.target.variant,
                    digest=self.target.digest,
                    size=self.target.size,
                )
            )
            deltas.add(session, pair, digest=self.delta, size=9, target_size=self.target.size, now=utc_now())

    def ask(self, device: RawDevice, *, earlier: timedelta = timedelta(0), expires_s: float = 60) -> str:
        with self.db.transaction() as session:
            request = Request(devices=[device.id], expires_s=expires_s)
            rows = asking.ask(session, self.target.release_id, request, now=utc_now() - earlier, actor="test")
            return rows[0].id

    def row(self, measurement_id: str) -> Measurement:
        with self.db.read() as session:
            return session.get_one(Measurement, measurement_id)


@pytest.fixture
def asked(sqlite_database, blobs, online_keys) -> Asked:
    return Asked(sqlite_database, blobs, online_keys)


async def refusal(call) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return code_of(caught.value)


async def test_who_was_asked_is_offered_it_and_may_read_it_and_what_leads_to_it(device, asked) -> None:
    watch, other = await device("watch-1"), await device("watch-2")
    measurement = asked.ask(watch)
    assert asked.ask(watch) == measurement
    async with watch.sync(inline_bytes=1 << 20) as sync:
        offer = await sync.receive(TaskOffer)
    assert (offer.task_id, offer.kind, offer.recipe, offer.contents) == (measurement, "measure", "", {})
    assert Subject.parse(offer.records_json) == Subject(release_id=asked.target.release_id, variant="student_fp32")
    assert [(blob.record, blob.digest, blob.size) for blob in offer.blobs] == [("artifact", digest(V2), len(V2))]
    assert await watch.fetch(digest(V2)) == V2
    request = pb.DeltasRequest(target_digest=digest(V2), held=[digest(V1)], version=VERSION)
    async with watch.edge() as stub:
        assert [step.digest for step in (await stub.Deltas(request)).steps] == [asked.delta]
    assert await watch.fetch(asked.delta) == build(V1, V2)
    for blob in (digest(V2), asked.delta):
        assert await refusal(other.fetch(blob)) == "blob_not_found"
    async with other.edge() as stub:
        assert await refusal(stub.Deltas(request)) == "blob_not_found"


async def test_an_answer_counts_once_and_only_from_who_was_asked(device, asked) -> None:
    watch, other = await device("watch-1"), await device("watch-2")
    measurement = asked.ask(watch)
    records = json.dumps(FIGURES)
    assert await refusal(other.upload(measurement, records_json=records)) == "task_unknown"
    assert await refusal(watch.upload("measurement_0", records_json=records)) == "task_unknown"
    assert await refusal(watch.upload(measurement, [b"arrays"], records_json=records)) == "reply_too_large"
    assert asked.row(measurement).state == MeasurementState.ASKED
    assert not (await watch.upload(measurement, records_json=records)).duplicate
    assert (await watch.upload(measurement, error_code="battery_low")).duplicate
    row = asked.row(measurement)
    assert (row.state, row.metrics, row.error) == (MeasurementState.DONE, {**FIGURES, "cached": False}, None)
    assert await refusal(watch.fetch(digest(V2))) == "blob_not_found"
    assert asked.ask(watch) != measurement


async def test_what_is_no_figure_is_a_failure(device, asked) -> None:
    watch = await device()
    for answer, code in (
        ({"error_code": "known_answer_failed", "error_message": "1 is 2"}, "known_answer_failed"),
        ({"records_json": "{}"}, "malformed_reply"),
        ({"records_json": "[]"}, "malformed_reply"),
        ({"records_json": json.dumps({**FIGURES, "p50_us": -1})}, "malformed_reply"),
        ({"records_json": json.dumps({**FIGURES, "p50_us": "fast"})}, "malformed_reply"),
        ({"records_json": json.dumps({**FIGURES, "p50_us": 41})}, "malformed_reply"),
        ({"records_json": json.dumps({**FIGURES, "load_ms": float("inf")})}, "malformed_reply"),
        ({"records_json": json.dumps({**FIGURES, "size": 1})}, "malformed_reply"),
    ):
        measurement = asked.ask(watch)
        await watch.upload(measurement, **answer)
        row = asked.row(measurement)
        assert (row.state, row.metrics, row.error["code"]) == (MeasurementState.FAILED, None, code), answer


async def test_what_has_expired_is_not_offered_and_a_late_answer_counts(device, asked) -> None:
    watch = await device()
    measurement = asked.ask(watch, earlier=timedelta(hours=1))
    assert asking.state_of(asked.row(measurement), now=utc_now()) == MeasurementState.EXPIRED
    async with watch.sync() as sync:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await sync.receive(TaskOffer)
    assert await refusal(watch.fetch(digest(V2))) == "blob_not_found"
    await watch.upload(measurement, records_json=json.dumps(FIGURES))
    assert asking.state_of(asked.row(measurement), now=utc_now()) == MeasurementState.DONE
