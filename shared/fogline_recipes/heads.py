"""The head of an artifact, its last linear layer: take it off to see the features it reads, put another one on.

An int8 head is replaced by a float one that reads the int8 body's features: the body stays as it was released.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import Corrupt, FoglineError, InvalidInput

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

Floats = NDArray[np.float32]

_WEIGHT, _BIAS, _FEATURES = "personal_weight", "personal_bias", "personal_features"


@dataclass(frozen=True, kw_only=True)
class Head:
    """Logits are ``features @ weight.T + bias``. ``weight``: (classes, features); ``bias``: (classes,)."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, kw_only=True)
class Beheaded:
    """An artifact without its head: an ONNX graph (n, *input_shape) → (n, features), and the head that was on it."""

    body: ModelProto
    head: Head
    # Names in the graph: what the head reads, and what it gives.
    read: str
    output: str

    def features(self, x: Floats) -> Floats:
        """What the head reads for raw examples, (n, features), by ONNX Runtime, as on the device."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = ort.InferenceSession(self.body.SerializeToString(), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        parts: list[Any] = [session.run([self.read], {name: x[i : i + 256]})[0] for i in range(0, len(x), 256)]
        return np.concatenate(parts)

    def wearing(self, head: Head) -> ModelProto:
        """The artifact with another head; metadata and everything before the head are kept."""
        from onnx import ModelProto, helper, numpy_helper

        model = ModelProto()
        model.CopyFrom(self.body)
        graph = model.graph
        graph.initializer.append(numpy_helper.from_array(head.weight.astype(np.float32), _WEIGHT))
        graph.initializer.append(numpy_helper.from_array(head.bias.astype(np.float32), _BIAS))
        graph.node.append(helper.make_node("Gemm", [self.read, _WEIGHT, _BIAS], [self.output], transB=1))
        del graph.output[:]
        graph.output.append(helper.make_tensor_value_info(self.output, 1, ("batch", len(head.bias))))
        return model


def behead(artifact: bytes) -> Beheaded:
    """Raises Corrupt ``not_a_model``; InvalidInput ``no_head`` when the artifact does not end in a linear layer."""
    import onnx

    try:
        model = onnx.load_model_from_string(artifact)
        graph = model.graph
        output = graph.output[0].name
        if _makers(graph)[output].op_type == "DequantizeLinear":
            head, read = _off_int8(graph, output)
        else:
            head, read = _off_float(graph, output)
    except (KeyError, IndexError, AttributeError) as error:
        raise InvalidInput("no_head", "the artifact does not end in a linear layer, which could be personal") from error
    except FoglineError:
        raise
    except Exception as error:  # the parser's errors share no base class
        raise Corrupt("not_a_model", f"the artifact cannot be read: {error}") from error
    width = head.weight.shape[1]
    del graph.output[:]
    graph.output.append(onnx.helper.make_tensor_value_info(read, 1, ("batch", width)))
    return Beheaded(body=model, head=head, read=read, output=output)


def _off_float(graph: GraphProto, output: str) -> tuple[Head, str]:
    """Take a float head off the graph; also the name of what it read."""
    from onnx import helper

    values = _values(graph)
    node = _makers(graph)[output]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type != "Gemm" or attributes.pop("transB", 0) != 1 or set(attributes.values()) - {1.0}:
        raise InvalidInput("no_head", f"the artifact ends in {node.op_type}, not in a linear layer of its own")
    features, weight, bias = node.input
    head = Head(weight=values[weight], bias=values[bias])
    _drop(graph, [node], {weight, bias})
    return head, str(features)


def _off_int8(graph: GraphProto, output: str) -> tuple[Head, str]:
    """As :func:`_off_float`, of QGemm and DequantizeLinear."""
    from onnx import helper

    makers, values = _makers(graph), _values(graph)
    last = makers[output]
    node = makers[last.input[0]]
    if node.op_type != "QGemm":
        raise InvalidInput("no_head", f"the artifact ends in an int8 {node.op_type}, not in a linear layer of its own")
    features, scale, zero, weight, weight_scale, weight_zero, bias = node.input[:7]
    scales = np.atleast_1d(values[weight_scale])
    offset = np.atleast_1d(values[weight_zero]).astype(np.int32)
    float_weight = (values[weight].astype(np.int32) - offset[:, None]) * scales[:, None]
    head = Head(
        weight=float_weight.astype(np.float32),
        bias=(values[bias] * values[scale] * scales).astype(np.float32),
    )
    _drop(graph, [node, last], {weight, bias})
    graph.node.append(helper.make_node("DequantizeLinear", [features, scale, zero], [_FEATURES]))
    return head, _FEATURES


def _makers(graph: GraphProto) -> dict[str, NodeProto]:
    return {name: node for node in graph.node for name in node.output}


def _values(graph: GraphProto) -> dict[str, NDArray[Any]]:
    from onnx import numpy_helper

    return {value.name: numpy_helper.to_array(value) for value in graph.initializer}


def _drop(graph: GraphProto, nodes: list[NodeProto], values: set[str]) -> None:
    for node in nodes:
        graph.node.remove(node)
    kept = [value for value in graph.initializer if value.name not in values]
    del graph.initializer[:]
    graph.initializer.extend(kept)
