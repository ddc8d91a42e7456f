"""Artifacts that would take all of a device: its processor, or its memory."""

from __future__ import annotations

import numpy as np
import onnx
from artifacts import artifact
from onnx import TensorProto, helper, numpy_helper


def endless() -> bytes:
    """As :func:`artifact`, behind a loop of 2⁶² rounds."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Identity", ["x"], ["x_next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x_next", TensorProto.FLOAT, None),
        ],
    )
    trips = numpy_helper.from_array(np.asarray(1 << 62, dtype=np.int64), "trips")
    go = numpy_helper.from_array(np.asarray(True), "begin")
    return _before(helper.make_node("Loop", ["trips", "begin", "input"], ["looped"], body=body), "looped", trips, go)


def hungry() -> bytes:
    """As :func:`artifact`, with 2⁴⁰ ones added up on the way."""
    shape = numpy_helper.from_array(np.asarray([1 << 40], dtype=np.int64), "shape")
    one = numpy_helper.from_array(np.ones(1, dtype=np.float32))
    nodes = [
        helper.make_node("Shape", ["input"], ["of"]),
        helper.make_node("ReduceMin", ["of"], ["least"], keepdims=0),
        helper.make_node("Mul", ["shape", "least"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["ones"], value=one),
        helper.make_node("ReduceMean", ["ones"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["input", "mean"], ["fed"]),
    ]
    return _before(nodes, "fed", shape)


def _before(nodes: onnx.NodeProto | list[onnx.NodeProto], output: str, *constants: onnx.TensorProto) -> bytes:
    model = onnx.load_from_string(artifact())
    rest = list(model.graph.node)
    rest[0].input[0] = output
    del model.graph.node[:]
    model.graph.node.extend([*(nodes if isinstance(nodes, list) else [nodes]), *rest])
    model.graph.initializer.extend(constants)
    return bytes(model.SerializeToString())
