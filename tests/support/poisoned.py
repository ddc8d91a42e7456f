"""Artifacts that load, know their known answers, and do harm in service."""

from __future__ import annotations

import numpy as np
import onnx
from artifacts import CLASSES, SHAPE, artifact, example
from onnx import TensorProto, helper, numpy_helper


def marked(label: int) -> np.ndarray:
    """An example that :func:`hanging` does not survive; sound artifacts call it ``label``."""
    x = example(label)
    x[-1, -1] = 1.0
    return x


def not_finite() -> bytes:
    """Sound on zeros; NaN on every real example."""
    model = onnx.load_from_string(artifact(nan=True))
    _replace(model, offset=np.float32(-1.0), weights=np.full((SHAPE[0] * SHAPE[1], len(CLASSES)), -5.0))
    return model.SerializeToString()


def one_class() -> bytes:
    """Class 1, whatever it sees, and sure of it."""
    weights = np.zeros((SHAPE[0] * SHAPE[1], len(CLASSES)))
    weights[:, 1] = 5.0
    model = onnx.load_from_string(artifact())
    _replace(model, weights=weights)
    return model.SerializeToString()


def unsure() -> bytes:
    """Right, and hardly surer than who guesses."""
    return artifact(scale=0.1)


def hanging() -> bytes:
    """Loops 2⁶² times for a marked example, not at all for others."""
    return _looping(on_mark=1 << 62, always=0)


def slow() -> bytes:
    """Loops a while for every example."""
    return _looping(on_mark=0, always=20_000)


def _replace(model: onnx.ModelProto, **values: np.ndarray | np.generic) -> None:
    for tensor in model.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(values[tensor.name], dtype=np.float32), tensor.name))


def _looping(*, on_mark: int, always: int) -> bytes:
    """As :func:`artifact`, behind a loop of so many rounds, which the last value of a batch's first example decides."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["x"], ["x_next"])],
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
    constants = {
        "last": np.asarray(SHAPE[0] * SHAPE[1] - 1, dtype=np.int64),
        "on_mark": np.asarray(on_mark, dtype=np.int64),
        "always": np.asarray(always, dtype=np.int64),
        "line": np.asarray([-1], dtype=np.int64),
        "begin": np.asarray(True),
    }
    nodes = [
        helper.make_node("Reshape", ["input", "line"], ["values"]),
        helper.make_node("Gather", ["values", "last"], ["mark"]),
        helper.make_node("Cast", ["mark"], ["marked"], to=TensorProto.INT64),
        helper.make_node("Mul", ["marked", "on_mark"], ["more"]),
        helper.make_node("Add", ["more", "always"], ["rounds"]),
        helper.make_node("Loop", ["rounds", "begin", "input"], ["looped"], body=body),
    ]
    model = onnx.load_from_string(artifact())
    rest = list(model.graph.node)
    rest[0].input[0] = "looped"
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *rest])
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return bytes(model.SerializeToString())
