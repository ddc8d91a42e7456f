"""Our encoding of blobs is protobuf's: what one writes the other reads, and neither takes what is none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from google.protobuf.message import DecodeError

from fogline_server.gateway.edge import handlers
from fogline_shared import bulk
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.proto.edge_pb2_grpc import EdgeServicer

SIZES = [0, 1, 127, 128, 16_383, 16_384, 1 << 20]


@pytest.mark.parametrize("size", SIZES)
def test_data_is_written_and_read_as_protobuf_does(size: int) -> None:
    data = bytes(i % 251 for i in range(size))
    for message in (bulk.chunk_to_bytes(data), pb.Chunk(data=data).SerializeToString()):
        assert pb.Chunk.FromString(message).data == data
        assert bytes(bulk.chunk_from_bytes(message)) == data
    for message in (bulk.upload_to_bytes(data), pb.UploadMessage(data=data).SerializeToString()):
        assert pb.UploadMessage.FromString(message) == pb.UploadMessage(data=data)
        assert bytes(bulk.upload_from_bytes(message)) == data


def test_a_header_is_no_data_and_nothing_is_neither() -> None:
    header = pb.UploadHeader(task_id="t", digest="d", size=3)
    message = bulk.upload_to_bytes(header)
    assert message == pb.UploadMessage(header=header).SerializeToString()
    assert bulk.upload_from_bytes(message) == header
    assert bulk.upload_from_bytes(b"") is None
    assert bytes(bulk.chunk_from_bytes(b"")) == b""


@pytest.mark.parametrize("tail", [b"\x0a\x01z", b"\x1a\x01z"], ids=["twice", "unknown_field"])
def test_more_than_one_field_is_left_to_protobuf(tail: bytes) -> None:
    message = bulk.chunk_to_bytes(b"abc") + tail
    assert bytes(bulk.chunk_from_bytes(message)) == pb.Chunk.FromString(message).data


@pytest.mark.parametrize("message", [b"\x0a", b"\x0a\x05abc", b"\x0a\xff\xff\xff\xff\xff\xff", b"\xff"])
def test_what_is_no_message_is_refused(message: bytes) -> None:
    with pytest.raises(DecodeError):
        bulk.chunk_from_bytes(message)


def test_every_call_of_the_protocol_is_served() -> None:
    class Recorder(EdgeServicer):
        """Any servicer: only the names count."""

    for method in pb.DESCRIPTOR.services_by_name["Edge"].methods:
        details = SimpleNamespace(method=f"/{bulk.EDGE}/{method.name}", invocation_metadata=())
        handler = handlers(Recorder()).service(details)
        assert handler is not None, method.name
        assert (handler.request_streaming, handler.response_streaming) == (
            method.client_streaming,
            method.server_streaming,
        )
