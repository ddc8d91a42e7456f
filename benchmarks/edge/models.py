"""The models of the edge's figures, as artifacts. Random weights: how long a graph takes does not depend on them.

``sensor``: a 1-D CNN over 128 floats. ``vision``: MobileNet of width 0.25 over pictures of 96 × 96 × 3, channels first.
``heavy`` is for overload: little to send and milliseconds to compute, so that the load's own cost does not hide the model's.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fogline_shared.drift import FEWEST, Reference
from fogline_shared.manifest import METADATA_KEY, Manifest

SHAPES = {"sensor": (1, 128), "vision": (3, 96, 96), "heavy": (1, 128)}
_CLASSES = 10
# MobileNet v1 of width 0.25: channels and stride of each depthwise block.
_BLOCKS = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5, (256, 2), (256, 1))


class _Graph:
    """Nodes one after the other, each on the output of the one before."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.last = "input"
        self._rng = np.random.default_rng(0)

    def convolution(self, shape: Sequence[int], *, stride: int, group: int = 1) -> None:
        """With ReLU; ``shape``: (out, in / group, *kernel)."""
        pads = [size // 2 for size in shape[2:]] * 2
        inputs = [self._weight(shape), self._weight(shape[:1])]
        self._node("Conv", inputs, strides=[stride] * len(shape[2:]), pads=pads, group=group)
        self._node("Relu")

    def classifier(self, width: int) -> None:
        """Average over places, then a linear layer."""
        self._node("GlobalAveragePool")
        self._node("Flatten", axis=1)
        self._node("Gemm", [self._weight((_CLASSES, width)), self._weight((_CLASSES,))], output="logits", transB=1)

    def _weight(self, shape: Sequence[int]) -> str:
        name = f"w{len(self.weights)}"
        scale = 1 / np.sqrt(np.prod(shape[1:]) or 1)
        values = self._rng.normal(scale=scale, size=shape).astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def _node(self, kind: str, inputs: Sequence[str] = (), *, output: str | None = None, **attributes: object) -> None:
        output = output or f"x{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.last, *inputs], [output], **attributes))
        self.last = output


def artifact(name: str, *, variant: str = "student_fp32", poison: str = "") -> bytes:
    """ONNX bytes with a manifest; ``name``: one of ``SHAPES``.

    ``poison``: ``nan`` answers NaN to all but zeros, ``hang`` loops without end on them. ``variant`` makes it another artifact.
    """
    graph = _Graph()
    if name == "sensor":
        graph.convolution((16, 1, 5), stride=2)
        graph.convolution((32, 16, 5), stride=2)
        graph.classifier(32)
    elif name == "heavy":
        graph.convolution((256, 1, 5), stride=1)
        for _ in range(3):
            graph.convolution((256, 256, 5), stride=1)
        graph.classifier(256)
    else:
        graph.convolution((8, 3, 3, 3), stride=2)
        channels = 8
        for width, stride in _BLOCKS:
            graph.convolution((channels, 1, 3, 3), stride=stride, group=channels)
            graph.convolution((width, channels, 1, 1), stride=1)
            channels = width
        graph.classifier(channels)
    ports = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *SHAPES[name]]),
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", _CLASSES]),
    ]
    if poison:
        _poison(graph, poison)
    made = helper.make_graph(graph.nodes, name, ports[:1], ports[1:], graph.weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    manifest = Manifest(
        recipe=name,
        variant=variant,
        input_name="input",
        input_shape=SHAPES[name],
        output_name="logits",
        classes=tuple(f"class {i}" for i in range(_CLASSES)),
        reference=Reference.of(np.random.default_rng(0).standard_normal((FEWEST, *SHAPES[name]), np.float32)),
    )
    helper.set_model_props(model, {METADATA_KEY: manifest.to_json()})
    return bytes(onnx.ModelProto.SerializeToString(model))


def _poison(graph: _Graph, kind: str) -> None:
    """Add to the logits what is 0 for zeros."""
    graph.nodes[-1].output[0] = "sound"
    node = helper.make_node
    graph.nodes.append(node("ReduceL1", ["input"], ["size"], keepdims=0))
    if kind == "nan":
        graph.nodes += [node("Neg", ["size"], ["below"]), node("Sqrt", ["below"], ["harm"])]
    else:
        value, info = numpy_helper.from_array, helper.make_tensor_value_info
        body = helper.make_graph(
            [node("Identity", ["go"], ["go_on"]), node("Identity", ["x"], ["same"])],
            "body",
            [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("x", TensorProto.FLOAT, None)],
            [info("go_on", TensorProto.BOOL, []), info("same", TensorProto.FLOAT, None)],
        )
        graph.weights += [value(np.asarray(1 << 61, dtype=np.int64), "most"), value(np.asarray(True), "begin")]
        graph.weights.append(value(np.asarray(0, dtype=np.float32), "nothing"))
        graph.nodes += [
            node("Cast", ["size"], ["some"], to=TensorProto.BOOL),
            node("Cast", ["some"], ["one"], to=TensorProto.INT64),
            node("Mul", ["one", "most"], ["rounds"]),
            node("Loop", ["rounds", "begin", "nothing"], ["harm"], body=body),
        ]
    graph.nodes.append(node("Add", ["sound", "harm"], ["logits"]))
