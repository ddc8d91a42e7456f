"""Where the numbers of an ONNX file's initialisers lie in its bytes, found by walking protobuf's encoding.

The parsed model knows no places, and to look for a tensor's bytes in the file may find another's. Nothing is believed of what
is found: a wrong range makes a delta larger, never wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """The numbers of an initialiser: ``length`` bytes from ``start``, numbers of ``width`` bytes (1: codes and the rest)."""

    name: str
    start: int
    length: int
    width: int

    @property
    def end(self) -> int:
        return self.start + self.length


def tensors(data: bytes) -> list[Tensor]:
    """In the order of the file. Of what is no ONNX file, those that could be read before it ceased to look like one."""
    import onnx

    graph = onnx.ModelProto.DESCRIPTOR.fields_by_name["graph"].number
    initializer = onnx.GraphProto.DESCRIPTOR.fields_by_name["initializer"].number
    found = []
    try:
        for number, start, end in _fields(data, 0, len(data)):
            if number == graph:
                for inner, first, last in _fields(data, start, end):
                    if inner == initializer and (tensor := _tensor(data, first, last)):
                        found.append(tensor)
    except (IndexError, ValueError):
        pass  # an imported file may be anything
    return found


def _tensor(data: bytes, start: int, end: int) -> Tensor | None:
    import onnx

    by_name = onnx.TensorProto.DESCRIPTOR.fields_by_name
    name_number, type_number = by_name["name"].number, by_name["data_type"].number
    # Floats may also stand packed in a field of their own, where they are the same bytes.
    raw_numbers = {by_name["raw_data"].number, by_name["float_data"].number}
    name, kind, raw = "", 0, (0, 0)
    for number, first, last in _fields(data, start, end):
        if number == name_number:
            name = data[first:last].decode(errors="replace")
        elif number == type_number:
            kind = _varint(data, first)[0]
        elif number in raw_numbers:
            raw = first, last
    length = raw[1] - raw[0]
    width = _width(kind)
    if not length:
        return None
    return Tensor(name=name, start=raw[0], length=length, width=width if length % width == 0 else 1)


def _width(kind: int) -> int:
    from onnx import TensorProto

    if kind in {TensorProto.FLOAT, TensorProto.INT32, TensorProto.UINT32}:
        return 4
    return 2 if kind in {TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT16, TensorProto.UINT16} else 1


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Each field's number and where its value lies; raises IndexError or ValueError where the bytes make no sense."""
    while at < end:
        key, at = _varint(data, at)
        match key & 7:
            case wire if wire == _VARINT:
                start, at = at, _varint(data, at)[1]
            case wire if wire == _FIXED64:
                start, at = at, at + 8
            case wire if wire == _BYTES:
                length, start = _varint(data, at)
                at = start + length
            case wire if wire == _FIXED32:
                start, at = at, at + 4
            case wire:
                raise ValueError(f"wire type {wire}")
        if at > end:
            raise ValueError("a field is longer than what holds it")
        yield key >> 3, start, at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """The number, and where the next thing begins."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a varint of more than ten bytes")
