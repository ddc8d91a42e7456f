"""Text with NUL is good protobuf and no PostgreSQL: it is the sender's error, and nobody else's."""

from __future__ import annotations

import grpc
import pytest
from edge import RawDevice, add_run, add_task, code_of, enroll, new_key, printed_token

from fogline_server.db.database import Database
from fogline_server.gateway.server import GatewayServer
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.protocol import Ack, Pace, Report

FAULTLESS = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}


@pytest.fixture
async def gateway(postgres_url, blobs, doorbell, authority, options):
    db = Database(postgres_url)
    server = GatewayServer(db=db, blobs=blobs, doorbell=doorbell, authority=authority, options=options)
    await server.start()
    yield server
    await server.stop(grace=0.2)
    db.dispose()


@pytest.fixture
def sqlite_database(gateway):
    """The gateway's database, which is none of SQLite here."""
    return gateway._parts.db


async def test_nul_in_any_text_is_refused_and_everybody_else_is_served(device, gateway, authority, sqlite_database):
    watch = await device()
    task_id = add_task(sqlite_database, add_run(sqlite_database), watch.id)

    async def infer() -> None:
        async with watch.edge() as stub:
            await stub.Infer(pb.InferRequest(release_id="rel\0", input=b"\0\0\0\0", shape=[1]), timeout=5)

    text = printed_token(sqlite_database, gateway, authority.ca_pem)
    for call in (
        infer(),
        watch.fetch("a\0"),
        watch.upload("run\0"),
        watch.upload(task_id, error_code="bad\0", error_message="bad\0"),
        enroll(text, "watch\0", new_key(), b"x"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() in FAULTLESS, (caught.value.code(), code_of(caught.value))
    # Such records are an answer: of a device that failed.
    assert not (await watch.upload(task_id, records_json='{"a": "\\u0000"}')).duplicate
    async with watch.sync() as sync:
        await sync.receive(Pace)
        report = Report(assignment_id="a\0", attempt=1, seq=3, boot_id="b\0", state="STAGED", generation=1, code="\0")
        await sync.send(report)
        assert (await sync.receive(Ack)).seq == 3
    key = new_key()
    other = RawDevice(name="watch-2", key=key, certificate=await enroll(text, "watch-2", key))
    async with other.sync() as sync:
        await sync.receive(Pace)
