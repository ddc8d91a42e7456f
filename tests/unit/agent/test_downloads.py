"""Downloads against a real gRPC server that serves one blob and counts what it was asked."""

from __future__ import annotations

import hashlib
from pathlib import Path

import grpc
import pytest

from fogline_client import transfer
from fogline_shared.errors import Corrupt
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.proto.edge_pb2_grpc import EdgeServicer, add_EdgeServicer_to_server

DATA = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(DATA).hexdigest()


class Cloud(EdgeServicer):
    """Serves ``data``, whatever is asked for."""

    def __init__(self) -> None:
        self.data = DATA
        self.offsets: list[int] = []

    async def Fetch(self, request: pb.FetchRequest, context) -> None:  # noqa: N802
        self.offsets.append(request.offset)
        for start in range(request.offset, len(self.data), 1 << 20):
            await context.write(pb.Chunk(data=self.data[start : start + (1 << 20)]))


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
async def channel(cloud: Cloud):
    server = grpc.aio.server()
    add_EdgeServicer_to_server(cloud, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(None)


@pytest.mark.parametrize("flush", [True, False])
async def test_a_blob_is_brought_whole_and_only_once(cloud: Cloud, channel, tmp_path: Path, *, flush: bool) -> None:
    target = tmp_path / "blobs" / DIGEST
    for _ in range(2):
        await transfer.fetch(channel, DIGEST, len(DATA), target, flush=flush)
    assert target.read_bytes() == DATA
    assert (cloud.offsets, [path.name for path in target.parent.iterdir()]) == ([0], [DIGEST])


@pytest.mark.parametrize("flush", [True, False])
async def test_a_download_goes_on_where_it_broke(cloud: Cloud, channel, tmp_path: Path, *, flush: bool) -> None:
    (tmp_path / "blob.part").write_bytes(DATA[:1_000_000])
    await transfer.fetch(channel, DIGEST, len(DATA), tmp_path / "blob", flush=flush)
    assert (tmp_path / "blob").read_bytes() == DATA
    assert cloud.offsets == [1_000_000]


@pytest.mark.parametrize("damage", [b"", DATA[:-1], b"\0" * len(DATA)], ids=["empty", "short", "zeros"])
async def test_what_a_power_cut_left_of_an_unflushed_blob_is_fetched_again(
    channel, tmp_path: Path, damage: bytes
) -> None:
    target = tmp_path / "blob"
    target.write_bytes(damage)
    await transfer.fetch(channel, DIGEST, len(DATA), target, flush=False)
    assert target.read_bytes() == DATA


async def test_other_bytes_than_promised_are_not_kept(cloud: Cloud, channel, tmp_path: Path) -> None:
    cloud.data = b"\1" + DATA[1:]
    with pytest.raises(Corrupt, match="digest_mismatch"):
        await transfer.fetch(channel, DIGEST, len(DATA), tmp_path / "blob", flush=False)
    assert list(tmp_path.iterdir()) == []
