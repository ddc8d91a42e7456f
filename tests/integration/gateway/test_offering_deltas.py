"""Deltas over the gateway: offered for what a device should run, readable by whom they lead somewhere, counted as sent."""

from __future__ import annotations

import grpc
import pytest
from agent_plant import online_keys
from agent_process import Cloud, digest
from artifacts import artifact
from edge import code_of

from fogline_server.db.base import utc_now
from fogline_server.registry.deltas import service
from fogline_server.registry.deltas.build import build, pack
from fogline_server.registry.deltas.service import Pair
from fogline_server.rollouts.tables import Assignment
from fogline_shared.delta import NOTHING, VERSION
from fogline_shared.proto import edge_pb2 as pb

__all__ = ["online_keys"]

V1, V2, V3 = (artifact(scale=scale, shape=(3, 64)) for scale in (5.0, 5.5, 6.0))


async def offered(device, target: str, held: list[str], *, version: int = VERSION) -> list[str]:
    """The blobs of the way that the gateway answers with."""
    async with device.edge() as stub:
        reply = await stub.Deltas(pb.DeltasRequest(target_digest=target, held=held, version=version))
    return [step.digest for step in reply.steps]


async def test_a_device_is_offered_and_may_read_what_leads_to_its_artifact_only(
    device, sqlite_database, blobs, online_keys
) -> None:
    watch, other = await device("watch-1"), await device("watch-2")
    cloud, stored = Cloud(sqlite_database, blobs, online_keys), {}
    for base, target in ((b"", V2), (V1, V2), (V2, V3)):
        made = build(base, target) if base else pack(target)
        pair = Pair(variant="student_fp32", base=digest(base) if base else NOTHING, target=digest(target))
        stored[base, target] = blobs.put([made]).digest
        with sqlite_database.transaction() as session:
            service.add(session, pair, digest=digest(made), size=len(made), target_size=len(target), now=utc_now())
    assignment = cloud.roll_out(watch.id, cloud.publish(V2))

    assert await offered(watch, digest(V2), [digest(V1)]) == [stored[V1, V2]]
    assert await offered(watch, digest(V2), []) == [stored[b"", V2]]
    assert await offered(watch, digest(V2), ["x" * 100] * 100) == [stored[b"", V2]]
    assert await offered(watch, digest(V2), [digest(V1)], version=0) == []
    for asked, who in ((digest(V3), watch), ("", watch), (digest(V2), other)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await offered(who, asked, [])
        assert code_of(caught.value) == "blob_not_found"

    assert await watch.fetch(stored[V1, V2]) == build(V1, V2)
    for blob, who in ((stored[V2, V3], watch), (stored[V1, V2], other)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await who.fetch(blob)
        assert code_of(caught.value) == "blob_not_found"
    # Resumed: only what was sent counts.
    assert await watch.fetch(digest(V2), len(V2) - 10) == V2[-10:]
    with sqlite_database.read() as session:
        assert session.get_one(Assignment, assignment).wire_bytes == len(build(V1, V2)) + 10
