"""A blob's bytes ↔ the messages that carry them, in protobuf's own encoding but past its copies.

A parsed message copies its bytes twice on either side, and megabytes pass here. A message of one ``bytes`` field is a tag,
a length and the bytes (https://protobuf.dev/programming-guides/encoding). Any other peer's stubs read and write the same.
"""

from __future__ import annotations

from fogline_shared.proto import edge_pb2 as pb

EDGE = pb.DESCRIPTOR.services_by_name["Edge"].full_name

# Field number and wire type LEN, of Chunk.data and of UploadMessage.data.
_CHUNK, _UPLOAD = 1 << 3 | 2, 2 << 3 | 2
# A length that a message of less than 2 GiB may have: five groups of seven bits.
_LONGEST_LENGTH = 5


def chunk_to_bytes(data: bytes) -> bytes:
    """A ``Chunk``."""
    return _message(_CHUNK, data)


def chunk_from_bytes(message: bytes) -> memoryview:
    """The data of a ``Chunk``; raises protobuf's DecodeError."""
    data = _data(_CHUNK, message)
    return memoryview(pb.Chunk.FromString(message).data) if data is None else data


def upload_to_bytes(part: pb.UploadHeader | bytes) -> bytes:
    """An ``UploadMessage`` of a header or of data."""
    if isinstance(part, bytes):
        return _message(_UPLOAD, part)
    message: bytes = pb.UploadMessage(header=part).SerializeToString()
    return message


def upload_from_bytes(message: bytes) -> pb.UploadHeader | memoryview | None:
    """What an ``UploadMessage`` holds, None when that is nothing; raises protobuf's DecodeError."""
    data = _data(_UPLOAD, message)
    if data is not None:
        return data
    parsed = pb.UploadMessage.FromString(message)
    if parsed.HasField("header"):
        header: pb.UploadHeader = parsed.header
        return header
    return memoryview(parsed.data) if parsed.HasField("data") else None


def _message(tag: int, data: bytes) -> bytes:
    head, left = bytearray([tag]), len(data)
    while left > 0x7F:
        head.append(left & 0x7F | 0x80)
        left >>= 7
    head.append(left)
    return b"".join((head, data))


def _data(tag: int, message: bytes) -> memoryview | None:
    """The bytes of a message that is this one field and nothing else; None for every other message."""
    if message[:1] != bytes([tag]):
        return None
    length = 0
    for i, byte in enumerate(message[1 : 1 + _LONGEST_LENGTH]):
        length |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            start = i + 2
            return memoryview(message)[start:] if length == len(message) - start else None
    return None
