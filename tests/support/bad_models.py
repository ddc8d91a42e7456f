"""Artifacts that are sound to look at and ruin whoever runs them: one loops without end, one allocates without end."""

from __future__ import annotations

import numpy as np
import onnx
from artifacts import CLASSES, SHAPE, artifact
from onnx import TensorProto, helper, numpy_helper


def looping() -> bytes:
    """Counts to 2**62 before it answers."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["sum", "one"], ["more"])],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, None),
        ],
    )
    return _before_the_answer(
        [helper.make_node("Loop", ["times", "true", "first"], ["value"], body=body)],
        {"times": np.int64(2**62), "true": np.True_, "one": np.float32(1), "first": np.float32(0)},
    )


def allocating() -> bytes:
    """Makes an array of 1 GiB before it answers."""
    nodes = [
        helper.make_node("Identity", ["shape"], ["asked"]),
        helper.make_node("ConstantOfShape", ["asked"], ["much"]),
        helper.make_node("ReduceMean", ["much"], ["value"], keepdims=0),
    ]
    # Added to the shape, the input's own size keeps the array from being made when the graph is loaded.
    nodes[0] = helper.make_node("Add", ["shape", "sizes"], ["asked"])
    nodes.insert(0, helper.make_node("Shape", ["input"], ["sizes"], start=1, end=2))
    return _before_the_answer(nodes, {"shape": np.array([2**28], dtype=np.int64)})


def _before_the_answer(nodes: list[onnx.NodeProto], constants: dict[str, np.generic | np.ndarray]) -> bytes:
    """A sound artifact with these nodes before its logits, whose ``value`` is added, times zero."""
    model = onnx.load_from_string(artifact(shape=SHAPE, classes=CLASSES))
    graph, last = model.graph, model.graph.node[-1]
    last.output[0] = "sound"
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    graph.initializer.append(numpy_helper.from_array(np.asarray(np.float32(0)), "zero"))
    graph.node.extend(
        [
            *nodes,
            helper.make_node("Mul", ["value", "zero"], ["nothing"]),
            helper.make_node("Add", ["sound", "nothing"], ["logits"]),
        ]
    )
    return bytes(model.SerializeToString())
