"""Weights stored in 1, 4 or 8 bits, or as fp16, with the few plain operators that unpack them.

ONNX Runtime folds these operators when it loads a file: the device computes in float, as fast as with the float parent, and
the file is smaller on disk and on the wire. Opset 17 is enough, and no operator is of a runtime's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

    # Initializers, and the nodes of which the last one gives the weight.
    Encoded = tuple[list[TensorProto], list[NodeProto]]

Floats = NDArray[np.float32]

# Below this many values the operators would weigh more than they save.
FEWEST = 256
WEIGHTED = ("Conv", "Gemm", "MatMul")


def rewrite(model: bytes, encode: Callable[[str, Floats], Encoded | None]) -> bytes:
    """The file with its large weights (of convolutions and dense layers) replaced by what makes them.

    ``encode(name, weight)`` gives initializers and nodes of which the last one's output is ``name``; None keeps a weight.
    """
    import onnx

    proto: ModelProto = onnx.load_from_string(model)
    graph = proto.graph
    read = {node.input[1] for node in graph.node if node.op_type in WEIGHTED and len(node.input) > 1}
    kept, made = [], []
    for value in graph.initializer:
        weight = onnx.numpy_helper.to_array(value)
        large = value.name in read and weight.dtype == np.float32 and weight.size >= FEWEST
        encoded = encode(value.name, weight) if large else None
        if encoded is None:
            kept.append(value)
        else:
            kept += encoded[0]
            made += encoded[1]
    nodes = [*made, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)
    return bytes(proto.SerializeToString(deterministic=True))


def half(name: str, weight: Floats) -> Encoded:
    """Stored as fp16; values outside its range are clipped to it."""
    limit = float(np.finfo(np.float16).max)
    stored = np.clip(weight, -limit, limit).astype(np.float16)
    work = _Work(name)
    work.node("Cast", [work.tensor(stored)], output=name, to=1)
    return work.tensors, work.nodes


def codes(name: str, weight: Floats, values: NDArray[np.integer[Any]], scales: Floats, bits: int) -> Encoded:
    """``weight`` as ``values * scales``: whole numbers of ``bits`` (1: of -1 and 1; else signed) in groups, a scale a group.

    ``values``: (groups, size), in the order of the flattened weight, the last group padded; ``scales``: (groups, 1).
    """
    work = _Work(name)
    if bits == 8:
        whole = work.node("Cast", [work.tensor(values.astype(np.int8))], to=1)
    else:
        whole = _unpacked(work, values, bits)
    scaled = work.node("Mul", [whole, work.tensor(scales.astype(np.float32))])
    if values.size != weight.size:
        scaled = work.first(scaled, weight.size)
    work.node("Reshape", [scaled, work.tensor(_whole(weight.shape))], output=name)
    return work.tensors, work.nodes


def _unpacked(work: _Work, values: NDArray[np.integer[Any]], bits: int) -> str:
    """Codes of 1 or 4 bits, several a byte, the first one in the lowest bits, as floats of values' shape."""
    each = 8 // bits
    # One bit: 0 is -1 and 1 is 1. Four: 0 … 15 are -8 … 7.
    step, offset = (2, -1) if bits == 1 else (1, -8)
    unsigned = ((values.astype(np.int64) - offset) // step).astype(np.uint8).ravel()
    padded = np.pad(unsigned, (0, -len(unsigned) % each)).reshape(-1, each)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    packed = np.bitwise_or.reduce(padded << shifts, axis=1)[:, np.newaxis].astype(np.uint8)
    shifted = work.node("BitShift", [work.tensor(packed), work.tensor(shifts)], direction="RIGHT")
    made = work.node("Cast", [work.node("Mod", [shifted, work.tensor(np.uint8(2**bits))])], to=1)
    if step != 1:
        made = work.node("Mul", [made, work.tensor(np.float32(step))])
    made = work.node("Add", [made, work.tensor(np.float32(offset))])
    if padded.size != values.size:
        made = work.first(made, values.size)
    return work.node("Reshape", [made, work.tensor(_whole(values.shape))])


class _Work:
    """Initializers and nodes that make one weight; their names are short, for they travel."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.tensors: list[TensorProto] = []
        self.nodes: list[NodeProto] = []

    def tensor(self, value: Any) -> str:
        from onnx import numpy_helper

        self.tensors.append(numpy_helper.from_array(np.asarray(value), self._fresh()))
        return str(self.tensors[-1].name)

    def node(self, kind: str, inputs: list[str], *, output: str | None = None, **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [output or self._fresh()], **attributes))
        return str(self.nodes[-1].output[0])

    def first(self, line: str, count: int) -> str:
        """The first ``count`` of all values, as one line."""
        line = self.node("Reshape", [line, self.tensor(_whole([-1]))])
        return self.node("Slice", [line, self.tensor(_whole([0])), self.tensor(_whole([count]))])

    def _fresh(self) -> str:
        return f"{self._name}~{len(self.tensors) + len(self.nodes)}"


def _whole(values: Sequence[int]) -> NDArray[np.int64]:
    return np.asarray(values, np.int64)


def grouped(weight: Floats, size: int) -> Floats:
    """(groups, size) of the flattened weight, the last group padded with zeros."""
    flat = weight.ravel()
    return np.pad(flat, (0, -len(flat) % size)).reshape(-1, size)
