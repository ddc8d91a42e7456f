"""Signed metadata over the gateway: by its name, to devices that are admitted."""

from __future__ import annotations

import grpc
from edge import RawDevice, code_of

from fogline_server.db.base import utc_now
from fogline_server.devices import service as devices
from fogline_server.trust import store
from fogline_server.trust.development import ensure_root
from fogline_server.trust.keys import OnlineKeys
from fogline_shared.proto import edge_pb2 as pb


async def ask(device: RawDevice, name: str) -> bytes | str:
    """The metadata, or the code of the refusal."""
    async with device.edge() as stub:
        try:
            return (await stub.Metadata(pb.MetadataRequest(name=name), timeout=10)).data
        except grpc.aio.AioRpcError as error:
            return code_of(error)


async def test_a_root_comes_with_the_certificate_and_metadata_by_name(sqlite_database, device, tmp_path) -> None:
    early = await device("early")
    assert early.certificate.trust_root == b""
    assert await ask(early, "timestamp.json") == "trust_not_set_up"
    keys = OnlineKeys(tmp_path / "trust")
    ensure_root(sqlite_database, keys, trust_dir=keys.folder, allowed=True, now=utc_now())
    with sqlite_database.read() as session:
        served = {name: store.document(session, name) for name in ("1.root.json", "root.json", "timestamp.json")}
    late = await device("late")
    assert late.certificate.trust_root == served["1.root.json"] == served["root.json"]
    for each in (early, late):
        assert {name: await ask(each, name) for name in served} == served
    assert await ask(late, "2.root.json") == "metadata_not_found"
    for name in ("", "../root.json", "snapshot", "1.root.json\0", f"{'9' * 30}.root.json"):
        assert await ask(late, name) == "bad_metadata_name", name


async def test_a_device_that_is_not_admitted_gets_none(sqlite_database, device) -> None:
    lost = await device("lost")
    with sqlite_database.transaction() as session:
        devices.revoke(session, lost.id, reason="lost", now=utc_now(), actor="test")
    assert await ask(lost, "timestamp.json") == "device_revoked"
