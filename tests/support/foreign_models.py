"""ONNX files as strangers bring them: sound ones, and one mistake or one malice each."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
from onnx import FunctionProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

SHAPE = (6, 32)
CLASSES = 4
QUANTIZED = "com.microsoft"  # of the domains that are allowed, the one in which anybody may define functions


def node(op: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node whose inputs and outputs are words."""
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def tensor(array: np.ndarray, name: str = "w") -> TensorProto:
    return numpy_helper.from_array(array, name)


def weights(scale: float = 0.01, *, width: int = 6 * 32, classes: int = CLASSES) -> TensorProto:
    """What :func:`linear` multiplies by."""
    rng = np.random.default_rng(0)
    return tensor((scale * rng.standard_normal((width, classes))).astype(np.float32))


def floats(name: str, *shape: int | str | None) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def model(
    nodes: Sequence[NodeProto],
    tensors: Sequence[TensorProto] = (),
    *,
    inputs: Sequence[ValueInfoProto] = (floats("pixels", "n", *SHAPE),),
    outputs: Sequence[ValueInfoProto] = (floats("answer", "n", CLASSES),),
    functions: Sequence[FunctionProto] = (),
    opset: int = 17,
    ir: int = 8,
) -> bytes:
    domains = sorted({"", *(each.domain for each in nodes), *(each.domain for each in functions)})
    graph = helper.make_graph(nodes, "foreign", inputs, outputs, tensors)
    opsets = [helper.make_opsetid(domain, 1 if domain else opset) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir, functions=list(functions)).SerializeToString()


LINEAR = (node("Flatten", "pixels", "flat"), node("MatMul", "flat w", "answer"))


def linear(width: int = 6 * 32, classes: int = CLASSES, *, domain: str = "", weight: float = 0.01) -> bytes:
    """A foreign model without a manifest: flatten, multiply."""
    return model(
        [LINEAR[0], node("MatMul", "flat w", "answer", domain=domain)],
        [weights(weight, width=width, classes=classes)],
        inputs=[floats("pixels", "n", 6, width // 6)],
        outputs=[floats("answer", "n", classes)],
    )


def elsewhere(kept: TensorProto, place: str = "/etc/passwd") -> TensorProto:
    """The tensor as one whose values are in another file."""
    moved = TensorProto()
    moved.CopyFrom(kept)
    moved.ClearField("raw_data")
    moved.data_location = TensorProto.EXTERNAL
    moved.external_data.add(key="location", value=place)
    return moved


def constant(size: int) -> bytes:
    """A file of three kilobytes that holds ``size`` numbers when it runs."""
    nodes = [
        node("ConstantOfShape", "size", "many"),
        node("ReduceMax", "many", "zero", keepdims=0),
        node("Flatten", "pixels", "flat"),
        node("MatMul", "flat w", "product"),
        node("Add", "product zero", "answer"),
    ]
    return model(nodes, [weights(), tensor(np.array([size]), "size")])


def nested(depth: int) -> bytes:
    """Branches in branches."""
    inner = helper.make_graph([node("Identity", "w", "o0")], "g0", [], [floats("o0", None, None)])
    for i in range(1, depth + 1):
        other = helper.make_graph([node("Identity", "w", f"e{i}")], f"e{i}", [], [floats(f"e{i}", None, None)])
        branch = node("If", "yes", f"o{i}", then_branch=inner, else_branch=other)
        inner = helper.make_graph([branch], f"g{i}", [], [floats(f"o{i}", None, None)])
    nodes = [*inner.node, node("Flatten", "pixels", "flat"), node("MatMul", f"flat o{depth}", "answer")]
    return model(nodes, [weights(), tensor(np.array(True), "yes")])


def looping(times: int) -> bytes:
    """Adds nothing, so often."""
    body = helper.make_graph(
        [node("Identity", "on", "go_on"), node("Add", "v nothing", "sum")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            floats("v", None, None),
        ],
        [helper.make_tensor_value_info("go_on", TensorProto.BOOL, []), floats("sum", None, None)],
    )
    nodes = [LINEAR[0], node("MatMul", "flat w", "product"), node("Loop", "times yes product", "answer", body=body)]
    zero, count, yes = np.float32(0), np.array(times), np.array(True)
    return model(nodes, [weights(), tensor(np.array(zero), "nothing"), tensor(count, "times"), tensor(yes, "yes")])


def functions(depth: int, fan: int = 10) -> bytes:
    """Functions that call functions: ``fan`` to the power of ``depth`` operators in some kilobytes."""
    made = []
    for level in range(depth):
        names = ["a", *(f"t{i}" for i in range(fan - 1)), "b"]
        op, domain = (f"F{level - 1}", QUANTIZED) if level else ("Neg", "")
        calls = [node(op, before, after, domain=domain) for before, after in pairwise(names)]
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QUANTIZED, 1)]
        made.append(helper.make_function(QUANTIZED, f"F{level}", ["a"], ["b"], calls, opsets))
    top = node(f"F{depth - 1}", "pixels", "turned", domain=QUANTIZED)
    return model([top, node("Flatten", "turned", "flat"), LINEAR[1]], [weights()], functions=made)


def with_metadata(content: bytes, **values: str) -> bytes:
    """The file with these entries beside those it has, underlines for points."""
    proto = onnx.load_from_string(content)
    for name, value in values.items():
        proto.metadata_props.add(key=name.replace("_", "."), value=value)
    return proto.SerializeToString()


_CHILD = """
import base64, json, sys
from fogline_server.registry.inspect_child import answer, limit
limit(memory_bytes=1 << 30, cpu_s=60)
for line in sys.stdin:
    print(json.dumps(answer(base64.b64decode(line))), flush=True)
"""


def inspected(models: Mapping[str, bytes]) -> dict[str, dict[str, Any]]:
    """What the inspection says of each, in one process as long as none of them kills it."""
    answers: dict[str, dict[str, Any]] = {}
    names = list(models)
    while len(answers) < len(models):
        rest = names[len(answers) :]
        lines = "".join(base64.b64encode(models[name]).decode() + "\n" for name in rest)
        child = subprocess.run(
            [sys.executable, "-c", _CHILD], input=lines, capture_output=True, text=True, timeout=120, check=False
        )
        said = [json.loads(line) for line in child.stdout.splitlines()]
        answers |= zip(rest, said, strict=False)
        if len(said) < len(rest):
            answers[rest[len(said)]] = {"code": "inspection_died", "message": str(child.returncode)}
    return answers
