"""Named arrays ↔ one flat safetensors blob. No pickle, no per-tensor messages, identified by its SHA-256.

Names keep their order, since Flower's strategies pair arrays by position.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import Corrupt

# safetensors' names of the types a model may have.
DTYPES: Mapping[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 16 * 1024 * 1024
# The models of a few runs look the same in every message: their headers are written and read once. Longer ones are not kept.
_LAYOUTS, _LONGEST_KEPT = 16, 64 * 1024


@lru_cache
def name_of(dtype: np.dtype[Any]) -> str:
    """NumPy's name of the type, which NumPy composes anew at each use."""
    return dtype.name


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Where one array lies in a blob. ``offset`` counts from the start of the blob, in bytes."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @cached_property
    def nbytes(self) -> int:
        """Length in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


def encode(arrays: Mapping[str, NDArray[Any]]) -> list[bytes | memoryview]:
    """The blob as buffers to write one after the other; arrays are not copied when they are contiguous.

    Raises Corrupt ``unsupported_dtype`` for a dtype that safetensors (or we) do not carry.
    """
    layout: list[tuple[str, np.dtype[Any], tuple[int, ...]]] = []
    buffers: list[bytes | memoryview] = []
    for name, array in arrays.items():
        dtype = array.dtype.newbyteorder("<")
        if dtype not in _NAMES:
            raise Corrupt("unsupported_dtype", f"array {name!r} has dtype {array.dtype}", name=name)
        data = np.ascontiguousarray(array, dtype=dtype)
        layout.append((name, dtype, array.shape))
        buffers.append(data.reshape(-1).view(np.uint8).data if data.nbytes else b"")
    return [_header(tuple(layout)), *buffers]


@lru_cache(_LAYOUTS)
def _header(layout: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]) -> bytes:
    header: dict[str, Any] = {}
    offset = 0
    for name, dtype, shape in layout:
        end = offset + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def digest(buffers: Iterable[bytes | memoryview]) -> str:
    """SHA-256 of the concatenated buffers, lower-case hexadecimal."""
    sha = hashlib.sha256()
    for buffer in buffers:
        sha.update(buffer)
    return sha.hexdigest()


def parse_header(prefix: bytes, total: int) -> tuple[TensorSpec, ...]:
    """Read the header from the first bytes of a blob that is ``total`` bytes long; check every claim it makes.

    ``prefix`` may be longer than the header. Raises Corrupt ``bad_tensors`` on anything inconsistent, before any
    allocation that the header asks for.
    """
    if len(prefix) < 8:
        raise Corrupt("bad_tensors", "the blob is shorter than a safetensors header")
    length = int.from_bytes(prefix[:8], "little")
    if length > min(MAX_HEADER, total - 8) or len(prefix) < 8 + length:
        raise Corrupt("bad_tensors", f"the header claims {length} bytes of a {total}-byte blob")
    text = prefix[8 : 8 + length]
    return _kept_specs(text, total) if length <= _LONGEST_KEPT else _specs(text, total)


def _specs(text: bytes, total: int) -> tuple[TensorSpec, ...]:
    base = 8 + len(text)
    try:
        header = json.loads(text)
        specs = tuple(_spec(name, entry, base) for name, entry in header.items() if name != "__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Corrupt("bad_tensors", f"the header cannot be read: {error}") from error
    position = base
    for spec in specs:
        if spec.offset != position:
            raise Corrupt("bad_tensors", f"array {spec.name!r} does not start where the one before it ends")
        position += spec.nbytes
    if position != total:
        raise Corrupt("bad_tensors", f"arrays end at byte {position} of {total}")
    return specs


_kept_specs = lru_cache(_LAYOUTS)(_specs)


def _spec(name: str, entry: Mapping[str, Any], base: int) -> TensorSpec:
    shape = tuple(entry["shape"])
    start, end = entry["data_offsets"]
    # Not isinstance: true is an int to Python, and 24.0 equals 24; as sizes both fail where the array is read.
    if not all(type(n) is int and n >= 0 for n in (*shape, start, end)):
        raise ValueError(f"array {name!r} has shape {shape} at {start} to {end}")
    spec = TensorSpec(name=name, dtype=DTYPES[entry["dtype"]], shape=shape, offset=base + start)
    if end - start != spec.nbytes:
        raise ValueError(f"array {name!r} of {spec.nbytes} bytes claims {end - start}")
    return spec


def header_length(first8: bytes) -> int:
    """How many bytes a reader needs for :func:`parse_header`; raises Corrupt ``bad_tensors`` over :data:`MAX_HEADER`."""
    if len(first8) < 8:
        raise Corrupt("bad_tensors", "the blob is shorter than a safetensors header")
    length = int.from_bytes(first8, "little")
    if length > MAX_HEADER:
        raise Corrupt("bad_tensors", f"the header claims {length} bytes")
    return 8 + length


def decode(blob: bytes | memoryview) -> dict[str, NDArray[Any]]:
    """All arrays of a blob as read-only views into it; raises Corrupt ``bad_tensors``."""
    view = memoryview(blob)
    needed = header_length(bytes(view[:8]))
    arrays = {}
    for spec in parse_header(bytes(view[:needed]), len(view)):
        flat = np.frombuffer(view, dtype=spec.dtype, count=math.prod(spec.shape), offset=spec.offset)
        arrays[spec.name] = flat.reshape(spec.shape)
    return arrays
