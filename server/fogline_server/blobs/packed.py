"""How bytes lie in the cold tier: as they are, compressed, or without their zeros, whichever is smallest.

A packed object says of itself how it is packed and how long it is unpacked, so that any one can be read by itself:
``FGL1``, one byte for the form, one for the width of a number, eight for the length, then the body.
"""

from __future__ import annotations

import struct

import numpy as np
import zstandard

from fogline_shared.errors import Corrupt

Buffer = bytes | memoryview

_HEAD = struct.Struct("<4sBBQ")
HEAD_BYTES = _HEAD.size
_MAGIC = b"FGL1"
_PLAIN, _ZSTD, _SPARSE, _SPARSE_ZSTD = range(4)
# Of which fewer than this share may differ from zero, or a bitmap is not worth trying.
_MOST_NONZERO = 0.5
_LEVEL = 9


def pack(data: Buffer, width: int = 1) -> bytes:
    """The smallest form of ``data``, numbers of ``width`` bytes (1, 2, 4 or 8)."""
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    forms = [(_PLAIN, bytes(data)), (_ZSTD, compressor.compress(data))]
    if width > 1 and len(data) % width:
        width = 1
    if sparse := _without_zeros(data, width):
        forms += [(_SPARSE, sparse), (_SPARSE_ZSTD, compressor.compress(sparse))]
    form, body = min(forms, key=lambda each: len(each[1]))
    return _HEAD.pack(_MAGIC, form, width, len(data)) + body


def length_of(packed: Buffer) -> int:
    """How many bytes it holds, told from its first :data:`HEAD_BYTES`; raises Corrupt ``blob_damaged``."""
    return _head(packed)[2]


def unpack(packed: Buffer) -> bytes:
    """What was packed; raises Corrupt ``blob_damaged`` for what no :func:`pack` has made."""
    form, width, length = _head(packed)
    body = memoryview(packed)[HEAD_BYTES:]
    try:
        if form in {_ZSTD, _SPARSE_ZSTD}:
            # A bitmap and values are never longer than what they stand for by more than an eighth.
            body = memoryview(zstandard.ZstdDecompressor().decompress(body, max_output_size=length + length // 8 + 1))
        data = _with_zeros(body, width, length) if form in {_SPARSE, _SPARSE_ZSTD} else bytes(body)
    except (zstandard.ZstdError, ValueError) as error:
        raise Corrupt("blob_damaged", f"a packed object cannot be unpacked: {error}") from error
    if len(data) != length:
        raise Corrupt("blob_damaged", f"a packed object of {length} bytes unpacks to {len(data)}")
    return data


def _head(packed: Buffer) -> tuple[int, int, int]:
    if len(packed) < HEAD_BYTES:
        raise Corrupt("blob_damaged", "a packed object ends within its head")
    magic, form, width, length = _HEAD.unpack_from(packed)
    if magic != _MAGIC or form > _SPARSE_ZSTD or width not in {1, 2, 4, 8}:
        raise Corrupt("blob_damaged", "a packed object has another head")
    return form, width, length


def _without_zeros(data: Buffer, width: int) -> bytes:
    """A bit for each number, then those numbers whose bytes are not all zero; empty where that cannot pay."""
    numbers = np.frombuffer(data, dtype=f"<u{width}")
    there = numbers != 0
    if not numbers.size or np.count_nonzero(there) > _MOST_NONZERO * numbers.size:
        return b""
    return bytes(np.packbits(there).data) + bytes(numbers[there].data)


def _with_zeros(body: Buffer, width: int, length: int) -> bytes:
    count = length // width
    bits = -(-count // 8)
    there = np.unpackbits(np.frombuffer(body, dtype=np.uint8, count=bits), count=count).astype(bool)
    numbers = np.zeros(count, dtype=f"<u{width}")
    numbers[there] = np.frombuffer(body, dtype=f"<u{width}", offset=bits)
    return bytes(numbers.data)
