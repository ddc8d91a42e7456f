"""A delta: how to make one file from another, exactly, in far fewer bytes than the file has.

Made for artifacts whose numbers moved a little (one more federated round): the difference of a tensor is taken number by
number, which leaves small values, and each byte of those values goes into a stream of its own, which leaves mostly zeros. A
delta from nothing is the file compressed. Whoever applies one needs to know nothing of ONNX.

Layout, little-endian: a header (:data:`_HEADER`: magic, version, SHA-256 of base and target, their sizes, the lengths of the
streams), then the streams, a zstd frame each, absent when empty. The first holds the operations, which write the target from
its first byte to its last: one byte of :class:`Kind`, the length as a varint and, where the base is read, how far behind the
last place read there this one begins, as a zigzag varint. (Colin Percival, "Naive differences of executable code", 2003, has
the idea of a difference of numbers in place of changed bytes; byte planes are Blosc's shuffle.)
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import Corrupt

MAGIC, VERSION = b"FOGDELTA", 1
# Nothing, as a base.
NOTHING = "0" * 64


class Kind(IntEnum):
    """What an operation does. The last three add a difference to numbers of the base, of 1, 2 or 4 bytes."""

    COPY = 0
    LITERAL = 1
    BYTES = 2
    HALVES = 3
    WORDS = 4


WIDTH = {Kind.BYTES: 1, Kind.HALVES: 2, Kind.WORDS: 4}
# The first stream of a kind; the bytes of its numbers follow from the least significant up.
_OPERATIONS, _LITERALS = 0, 1
_PLANES = {Kind.BYTES: 2, Kind.HALVES: 3, Kind.WORDS: 5}
_STREAMS = 9
_HEADER = struct.Struct(f"<8sB3x32s32sII{_STREAMS}I")
# Bytes of the target made at once; a multiple of every width.
_CHUNK = 1 << 16
# How far back a stream refers at most, which is what applying keeps of it in memory: 1 MiB.
_WINDOW_LOG = 20
_LEVEL = 19


@dataclass(frozen=True)
class Operation:
    """``length`` bytes of the target, from ``start`` in the base where the kind reads it."""

    kind: Kind
    length: int
    start: int = 0


@dataclass(frozen=True, kw_only=True)
class Header:
    """Digests are lower-case hexadecimal SHA-256; ``base`` is :data:`NOTHING` for a file that is only compressed."""

    base: str
    target: str
    base_size: int
    target_size: int
    lengths: tuple[int, ...]


def difference(kind: Kind, base: bytes | memoryview, target: bytes | memoryview) -> NDArray[np.uint8]:
    """Target minus base, number by number, small ones of either sign as small ones: (width, numbers) by significance."""
    width = WIDTH[kind]
    delta = np.frombuffer(target, f"<i{width}") - np.frombuffer(base, f"<i{width}")
    folded = (delta << 1) ^ (delta >> (8 * width - 1))
    return np.ascontiguousarray(folded.astype(f"<i{width}", copy=False).view(np.uint8).reshape(-1, width).T)


def _sum(kind: Kind, base: bytes, planes: Sequence[bytes]) -> bytes:
    width = WIDTH[kind]
    folded = np.empty((len(base) // width, width), np.uint8)
    for significance, plane in enumerate(planes):
        folded[:, significance] = np.frombuffer(plane, np.uint8)
    numbers: NDArray[np.unsignedinteger] = folded.reshape(-1).view(f"<u{width}")
    return bytes(((numbers >> 1 ^ -(numbers & 1)) + np.frombuffer(base, f"<u{width}")).data)


def encode(base: bytes, target: bytes, operations: Sequence[Operation]) -> bytes:
    """The delta that does ``operations``, which must make ``target`` of ``base``. An empty base is :data:`NOTHING`."""
    streams: list[list[bytes | memoryview]] = [[] for _ in range(_STREAMS)]
    old, new, at, expected = memoryview(base), memoryview(target), 0, 0
    for operation in operations:
        kind, length, start = operation.kind, operation.length, operation.start
        streams[_OPERATIONS].append(bytes([kind]) + _varint(length))
        if kind is Kind.LITERAL:
            streams[_LITERALS].append(new[at : at + length])
        else:
            jump = start - expected
            streams[_OPERATIONS].append(_varint(jump << 1 if jump >= 0 else (-jump << 1) - 1))
            expected = start + length
        if kind in WIDTH:
            for plane, data in enumerate(difference(kind, old[start : start + length], new[at : at + length])):
                streams[_PLANES[kind] + plane].append(data.tobytes())
        at += length
    packed = [_pack(b"".join(parts)) for parts in streams]
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        hashlib.sha256(base).digest() if base else bytes(32),
        hashlib.sha256(target).digest(),
        len(base),
        len(target),
        *map(len, packed),
    )
    return b"".join((header, *packed))


def _pack(data: bytes) -> bytes:
    import zstandard

    if not data:
        return b""
    window = min(_WINDOW_LOG, max(10, (len(data) - 1).bit_length()))
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, source_size=len(data), window_log=window, write_content_size=False
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def read_header(delta: BinaryIO) -> Header:
    """What a delta says of itself; raises Corrupt ``delta_malformed``. Leaves ``delta`` behind its header."""
    raw = delta.read(_HEADER.size)
    if len(raw) != _HEADER.size or not raw.startswith(MAGIC):
        raise _malformed("it does not begin like a delta")
    _, version, base, target, base_size, target_size, *lengths = _HEADER.unpack(raw)
    if version != VERSION:
        raise _malformed(f"its version is {version}, not {VERSION}")
    return Header(
        base=base.hex(), target=target.hex(), base_size=base_size, target_size=target_size, lengths=tuple(lengths)
    )


def apply(delta: BinaryIO, base: BinaryIO | None, target: BinaryIO, *, digest: str, size: int) -> None:
    """Write the target into ``target``: it is what is wanted, or Corrupt is raised and what was written is worthless.

    Reads both files by seeking; memory does not grow with them, nor with what a malicious delta claims. ``digest`` and
    ``size``: of the file wanted. Raises Corrupt ``delta_malformed``, ``delta_wrong_target``, ``delta_wrong_base`` and
    ``delta_wrong_result``.
    """
    header = read_header(delta)
    if (header.target, header.target_size) != (digest, size):
        raise Corrupt("delta_wrong_target", f"the delta makes {header.target}, not {digest}", digest=header.target)
    if header.base == NOTHING:
        base = io.BytesIO()
    elif base is None or _digest_of(base) != header.base:
        raise Corrupt("delta_wrong_base", f"the delta needs {header.base}, which is not here", digest=header.base)
    made = hashlib.sha256()
    for data in _made(header, delta, base):
        made.update(data)
        target.write(data)
    if made.hexdigest() != digest:
        raise Corrupt("delta_wrong_result", f"the delta made {made.hexdigest()} instead of {digest}", digest=digest)


def _digest_of(file: BinaryIO) -> str:
    file.seek(0)
    digest = hashlib.sha256()
    while data := file.read(_CHUNK):
        digest.update(data)
    return digest.hexdigest()


def _made(header: Header, delta: BinaryIO, base: BinaryIO) -> Iterator[bytes]:
    """The target in pieces of at most a chunk."""
    starts = [_HEADER.size + sum(header.lengths[:i]) for i in range(_STREAMS + 1)]
    if delta.seek(0, io.SEEK_END) != starts[-1]:
        raise _malformed("it is shorter or longer than it says")
    streams = [_Stream(delta, start, length) for start, length in zip(starts, header.lengths, strict=False)]
    left, expected = header.target_size, 0
    while left:
        kind, length = streams[_OPERATIONS].kind(), streams[_OPERATIONS].varint()
        if not 0 < length <= left or length % WIDTH.get(kind, 1):
            raise _malformed(f"an operation of {length} bytes where {left} are left")
        left -= length
        if kind is Kind.LITERAL:
            for piece in _pieces(length):
                yield streams[_LITERALS].read(piece)
            continue
        jump = streams[_OPERATIONS].varint()
        start = expected + (jump >> 1 ^ -(jump & 1))
        expected = start + length
        if start < 0 or expected > header.base_size:
            raise _malformed(f"it reads bytes {start} to {expected} of a base of {header.base_size}")
        base.seek(start)
        for piece in _pieces(length):
            data = base.read(piece)
            if len(data) != piece:
                raise _malformed("the base is shorter than the delta says")
            yield data if kind is Kind.COPY else _changed(kind, data, streams)


def _changed(kind: Kind, data: bytes, streams: Sequence[_Stream]) -> bytes:
    width, first = WIDTH[kind], _PLANES[kind]
    return _sum(kind, data, [stream.read(len(data) // width) for stream in streams[first : first + width]])


def _pieces(length: int) -> Iterator[int]:
    for start in range(0, length, _CHUNK):
        yield min(_CHUNK, length - start)


class _Part(io.RawIOBase):
    """A range of a file that others read too."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        self._file, self._at, self._end = file, start, start + length

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        left = self._end - self._at
        self._file.seek(self._at)
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data


class _Stream:
    """One stream, unpacked as it is read."""

    def __init__(self, delta: BinaryIO, start: int, length: int) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        unpack = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
        # A small read size: nine streams are open side by side.
        part = cast("BinaryIO", _Part(delta, start, length))
        self._reader = unpack.stream_reader(part, read_size=1 << 13) if length else None

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            try:
                data = self._reader.read(size) if self._reader else b""
            except self._error as error:
                raise _malformed(f"a stream does not unpack: {error}") from error
            if not data:
                raise _malformed("a stream ends early")
            parts.append(data)
            size -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def kind(self) -> Kind:
        value = self.read(1)[0]
        if value > Kind.WORDS:
            raise _malformed(f"there is no operation {value}")
        return Kind(value)

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.read(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise _malformed("a number is too long")


def _malformed(why: str) -> Corrupt:
    return Corrupt("delta_malformed", f"the delta cannot be applied: {why}")
