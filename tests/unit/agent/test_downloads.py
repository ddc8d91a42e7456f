"""Downloads against a real gRPC server that serves one blob and counts what it was asked."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

import grpc
import pytest
from disk import watched

from fogline_client import transfer
from fogline_shared.errors import Corrupt, Unavailable
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.proto.edge_pb2_grpc import EdgeServicer, add_EdgeServicer_to_server

DATA = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(DATA).hexdigest()


class Cloud(EdgeServicer):
    """Serves ``data``, whatever is asked for."""

    def __init__(self) -> None:
        self.data = DATA
        self.offsets: list[int] = []
        # So many bytes come one by one.
        self.trickle = 0

    async def Fetch(self, request: pb.FetchRequest, context) -> None:  # noqa: N802
        self.offsets.append(request.offset)
        for start in range(request.offset, self.trickle):
            await context.write(pb.Chunk(data=self.data[start : start + 1]))
            await asyncio.sleep(0.02)
            request.offset = start + 1
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


async def test_power_cut_at_each_write_of_a_download(cloud: Cloud, channel, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what is flushed is told apart from what is not
    root = tmp_path / "first"
    root.mkdir()
    with watched(root) as disk:
        await transfer.fetch(channel, DIGEST, len(DATA), root / "incoming" / DIGEST)
        disk.say()
    for number, left in enumerate(disk.left):
        target = left.put(tmp_path / str(number)) / "incoming" / DIGEST
        assert not target.exists() or target.read_bytes() == DATA, left
        cloud.offsets.clear()
        await transfer.fetch(channel, DIGEST, len(DATA), target)
        assert target.read_bytes() == DATA, left
        assert not (left.done and cloud.offsets), left
    assert len(disk.left) > 5


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


async def test_a_download_that_trickles_is_given_up_and_resumed(
    cloud: Cloud, channel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slow retrieval: each byte comes in time, the whole never would."""
    monkeypatch.setattr(transfer, "_STALL_S", 0.3)
    monkeypatch.setattr(transfer, "_SLOWEST_BYTES_PER_S", 1 << 40)
    cloud.trickle = len(DATA)
    with pytest.raises(Unavailable, match="transfer_too_slow"):
        await transfer.fetch(channel, DIGEST, len(DATA), tmp_path / "blob")
    arrived = (tmp_path / "blob.part").stat().st_size
    assert 0 < arrived < len(DATA)
    monkeypatch.setattr(transfer, "_SLOWEST_BYTES_PER_S", len(DATA) // 60)
    cloud.trickle = arrived + 3  # slow, but for no longer than it may be
    await transfer.fetch(channel, DIGEST, len(DATA), tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == DATA
    assert cloud.offsets == [0, arrived]
