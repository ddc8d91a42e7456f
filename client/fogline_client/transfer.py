"""Blobs over the gateway: downloads that resume and are believed only by their digest, uploads of replies."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc

from fogline_client import channel, durable
from fogline_shared import bulk, wire
from fogline_shared.delta import VERSION
from fogline_shared.errors import Corrupt, NotFound, Unavailable
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.protocol import DeltaStep, TaskReply

# A transfer that brings nothing for this long is given up and resumed.
_STALL_S = 30.0
# And one that brings less than this for longer: whoever sends a byte now and then must not hold a device for ever.
_SLOWEST_BYTES_PER_S = 500
_CHUNK = 1 << 20


async def fetch(open_channel: grpc.aio.Channel, digest: str, size: int, target: Path, *, flush: bool = True) -> None:
    """Bring a blob to ``target``: whole, flushed to disk, its SHA-256 checked. Continues an earlier, broken download.

    Without ``flush`` a power cut may leave a damaged ``target``, which the next call replaces; what is read once and
    thrown away need not wear the disk.
    Raises Corrupt ``digest_mismatch`` (the partial file is then discarded) or ``blob_too_long``, Exhausted ``disk_full``,
    Unavailable ``transfer_stalled``, ``transfer_too_slow`` or ``transfer_cut``, and whatever the gateway answers.
    """
    if target.exists() and await asyncio.to_thread(durable.digest_of, target) == digest:
        return
    part = target.with_name(target.name + ".part")
    with durable.full_disk_named(part):
        durable.make_folder(part.parent)
        await _receive(open_channel, digest, size, part, flush=flush)
        if flush:
            await asyncio.to_thread(durable.move, part, target)
        else:
            part.replace(target)


async def _receive(open_channel: grpc.aio.Channel, digest: str, size: int, part: Path, *, flush: bool) -> None:
    with part.open("ab", buffering=0) as file:
        sha, offset = hashlib.sha256(), file.tell()
        if offset:
            sha = await asyncio.to_thread(_hash_of, part)
        if offset < size:
            async for data in _chunks(open_channel, digest, offset, size):
                offset += len(data)
                if offset > size:
                    break
                sha.update(data)
                file.write(data)
        if flush:
            await asyncio.to_thread(os.fsync, file.fileno())
    if offset < size:
        raise Unavailable("transfer_cut", f"{offset} of {size} bytes of {digest} arrived")
    if offset > size:
        part.unlink()
        raise Corrupt("blob_too_long", f"more than the promised {size} bytes of {digest}", digest=digest)
    if sha.hexdigest() != digest:
        part.unlink()
        raise Corrupt("digest_mismatch", f"the bytes hash to {sha.hexdigest()}, not to {digest}", digest=digest)


def _hash_of(part: Path) -> hashlib._Hash:
    with part.open("rb") as file:
        return hashlib.file_digest(file, "sha256")


async def _chunks(open_channel: grpc.aio.Channel, digest: str, offset: int, size: int) -> AsyncIterator[memoryview]:
    fetch_call = open_channel.unary_stream(
        f"/{bulk.EDGE}/Fetch",
        request_serializer=pb.FetchRequest.SerializeToString,
        response_deserializer=bulk.chunk_from_bytes,
    )
    call = fetch_call(pb.FetchRequest(digest=digest, offset=offset))
    allowed_s = _STALL_S + (size - offset) / _SLOWEST_BYTES_PER_S
    until = time.monotonic() + allowed_s
    try:
        while True:
            with channel.translated():
                message = await asyncio.wait_for(call.read(), min(_STALL_S, until - time.monotonic()))
            if message is grpc.aio.EOF:
                return
            yield message
    except TimeoutError as error:
        if time.monotonic() >= until:
            text = f"{size - offset} bytes did not come within {allowed_s:.0f} s"
            raise Unavailable("transfer_too_slow", text) from error
        raise Unavailable("transfer_stalled", f"nothing arrived for {_STALL_S:.0f} s") from error
    finally:
        call.cancel()


async def deltas(open_channel: grpc.aio.Channel, target: str, held: Sequence[str]) -> list[DeltaStep]:
    """How to make artifact ``target`` of those held; none: whole. Raises what the gateway answers, InvalidInput ``malformed_frame``."""
    call = open_channel.unary_unary(
        f"/{bulk.EDGE}/Deltas",
        request_serializer=pb.DeltasRequest.SerializeToString,
        response_deserializer=pb.DeltasReply.FromString,
    )
    try:
        with channel.translated():
            reply = await call(pb.DeltasRequest(target_digest=target, held=held, version=VERSION), timeout=_STALL_S)
    except Unavailable as error:
        if error.code == "gateway_unimplemented":  # an older coordinator
            return []
        raise
    return wire.deltas_from_pb(reply)


async def metadata(open_channel: grpc.aio.Channel, name: str) -> bytes | None:
    """Signed metadata by name; None: there is none. Raises what the gateway answers."""
    call = open_channel.unary_unary(
        f"/{bulk.EDGE}/Metadata",
        request_serializer=pb.MetadataRequest.SerializeToString,
        response_deserializer=pb.MetadataReply.FromString,
    )
    try:
        with channel.translated():
            reply = await call(pb.MetadataRequest(name=name), timeout=_STALL_S)
    except NotFound:
        return None
    return bytes(reply.data)


async def upload(open_channel: grpc.aio.Channel, reply: TaskReply, blob: Path | None, *, inline_bytes: int = 0) -> bool:
    """Hand over a reply; returns whether the coordinator had it already. Raises what the gateway answers.

    A blob of up to ``inline_bytes`` goes with the header.
    """
    timeout_s = 2 * _STALL_S + reply.size / 50_000
    upload_call = open_channel.stream_unary(
        f"/{bulk.EDGE}/Upload",
        request_serializer=bulk.upload_to_bytes,
        response_deserializer=pb.UploadReceipt.FromString,
    )
    with channel.translated():
        receipt = await upload_call(_messages(reply, blob, inline_bytes), timeout=timeout_s)
    return bool(receipt.duplicate)


async def _messages(reply: TaskReply, blob: Path | None, inline_bytes: int) -> AsyncIterator[pb.UploadHeader | bytes]:
    inline = blob is not None and reply.size <= inline_bytes
    yield wire.reply_to_pb(reply, blob.read_bytes() if blob is not None and inline else b"")
    if blob is None or inline:
        return
    with blob.open("rb") as file:
        while data := file.read(_CHUNK):
            yield data
