"""ONNX files made to mislead, to cost, or by accident: each is refused by name, beside a twin that is taken."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from artifacts import artifact
from foreign_models import (
    LINEAR,
    QUANTIZED,
    SHAPE,
    constant,
    elsewhere,
    floats,
    functions,
    inspected,
    linear,
    looping,
    model,
    nested,
    node,
    tensor,
    weights,
    with_metadata,
)
from onnx import TensorProto, helper

from fogline_server.registry.importing import inspect_apart
from fogline_shared.errors import Corrupt
from fogline_shared.manifest import KnownAnswer, Manifest

SIZES = np.array([192, 4])


def claimed(*dims: int) -> TensorProto:
    """Weights that say they are of another shape than their bytes."""
    made = weights()
    del made.dims[:]
    made.dims.extend(dims)
    return made


def subgraph(kept: TensorProto) -> bytes:
    """The weights in one branch of an If, as its initializer."""
    branch = helper.make_graph([node("Identity", "own", "o")], "g", [], [floats("o", None, None)], [kept])
    nodes = [node("If", "yes", "w", then_branch=branch, else_branch=branch), *LINEAR]
    return model(nodes, [tensor(np.array(True), "yes")])


def function(op: str) -> bytes:
    """A model of one function that does ``op`` of our own."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QUANTIZED, 1)]
    body = [node(op, "a", "b", domain=QUANTIZED if op == "F" else "")]
    made = helper.make_function(QUANTIZED, "F", ["a"], ["b"], body, opsets)
    nodes = [node("F", "pixels", "turned", domain=QUANTIZED), node("Flatten", "turned", "flat"), LINEAR[1]]
    return model(nodes, [weights()], functions=[made])


def of_shape(*shape: int | str) -> bytes:
    """Sums up its input over all but the first axis."""
    nodes = [node("Flatten", "pixels", "flat"), node("ReduceSum", "flat axes", "answer", keepdims=1)]
    axes = tensor(np.array([1]), "axes")
    return model(nodes, [axes], inputs=[floats("pixels", *shape)], outputs=[floats("answer", shape[0], 1)])


def described(**changed: object) -> bytes:
    """The linear model with a manifest, of which something is changed in its JSON."""
    known = tuple(KnownAnswer.of(np.zeros(SHAPE, np.float32), 0) for _ in range(2))
    manifest = Manifest(
        recipe="tiny",
        variant="student_fp32",
        input_name="pixels",
        input_shape=SHAPE,
        output_name="answer",
        classes=("a", "b", "c", "d"),
        known_answers=known,
    )
    return with_metadata(linear(), fogline_manifest=json.dumps(json.loads(manifest.to_json()) | changed))


def again(content: bytes, name: str) -> bytes:
    """Two entries of one name."""
    proto = onnx.load_from_string(content)
    for text in ("1", "2"):
        proto.metadata_props.add(key=name, value=text)
    return proto.SerializeToString()


def in_a_sparse_one(values: TensorProto) -> bytes:
    indices = tensor(np.array([[0, 0]]), "indices")
    sparse = helper.make_sparse_tensor(values, indices, [192, 4])
    return model([node("Constant", "", "w", sparse_value=sparse), *LINEAR])


ONE = tensor(np.ones(1, np.float32), "own")
# Each with its code, or None where it is sound: next to what it is the twin of.
CASES: dict[str, tuple[bytes, str | None]] = {
    "sound": (linear(), None),
    "text": (b"not a model " * 100, "not_onnx"),
    "weights in another file": (model(LINEAR, [elsewhere(weights())]), "external_data"),
    "in a file beside": (model(LINEAR, [elsewhere(weights(), "weights.bin")]), "external_data"),
    "up the path": (model(LINEAR, [elsewhere(weights(), "../../etc/passwd")]), "external_data"),
    "a constant in another file": (
        model([node("Constant", "", "w", value=elsewhere(weights())), *LINEAR]),
        "external_data",
    ),
    "a constant": (model([node("Constant", "", "w", value=weights()), *LINEAR]), None),
    "a branch's weights elsewhere": (subgraph(elsewhere(tensor(np.ones(SIZES, np.float32), "own"))), "external_data"),
    "a branch's weights": (subgraph(tensor(np.ones(SIZES, np.float32), "own")), None),
    "a sparse constant elsewhere": (in_a_sparse_one(elsewhere(ONE)), "external_data"),
    "an unknown operator": (model([node("Frobnicate", "pixels", "flat"), LINEAR[1]], [weights()]), "foreign_operators"),
    "one of nobody's domain": (linear(domain="com.evil"), "foreign_operators"),
    "an unknown one of ONNX Runtime": (linear(domain=QUANTIZED), "model_does_not_load"),
    "a cycle": (
        model(
            [LINEAR[0], node("Add", "flat b", "a"), node("Relu", "a", "b"), node("MatMul", "b w", "answer")],
            [weights()],
        ),
        "not_onnx",
    ),
    "a function that calls itself": (function("F"), "not_onnx"),
    "a function": (function("Neg"), None),
    "functions that call functions": (functions(9), "model_too_large"),
    "two of them": (functions(2), None),
    "branches in branches, thirty deep": (nested(30), None),
    "a loop that ends": (looping(3), None),
    "a constant of three gigabytes": (constant(800_000_000), "model_too_large"),
    "one of a terabyte": (constant(1 << 38), "model_too_large"),
    "one of four megabytes": (constant(1_000_000), None),
    "weights that claim a terabyte": (model(LINEAR, [claimed(1 << 36, 4)]), "not_onnx"),
    "weights of negative size": (model(LINEAR, [claimed(-192, -4)]), "not_onnx"),
    "an input of more values than there are": (
        model(
            [node("ReduceMean", "pixels", "answer", axes=[2], keepdims=0)], inputs=[floats("pixels", "n", 4, 1 << 62)]
        ),
        "model_too_large",
    ),
    "an input of half a gigabyte": (of_shape("n", 1 << 27), "model_too_large"),
    "an input of a megabyte": (of_shape("n", 1 << 18), None),
    "an input without axes": (of_shape("n"), "wrong_signature"),
    "an input of any length": (of_shape("n", "length"), "wrong_signature"),
    "a batch of one": (of_shape(1, 6, 32), "fixed_batch"),
    "any batch": (of_shape("n", 6, 32), None),
    "no output": (model(LINEAR, [weights()], outputs=[]), "wrong_signature"),
    "no input": (model([node("Identity", "w", "answer")], [weights()], inputs=[]), "wrong_signature"),
    "two inputs": (
        model(LINEAR, [weights()], inputs=[floats(n, "n", *SHAPE) for n in ("pixels", "b")]),
        "wrong_signature",
    ),
    "an opset of the future": (model(LINEAR, [weights()], opset=999), "unsupported_opset"),
    "an opset that no device has": (model(LINEAR, [weights()], opset=23, ir=10), "unsupported_opset"),
    "the newest opset": (model(LINEAR, [weights()], opset=22, ir=10), None),
    "the oldest opset": (model(LINEAR, [weights()], opset=7, ir=3 + 1), None),
    "an opset before it": (model(LINEAR, [weights()], opset=6, ir=4), "unsupported_opset"),
    "a format of the future": (model(LINEAR, [weights()], ir=11), "unsupported_opset"),
    "a note": (with_metadata(linear(), note="by hand"), None),
    "two notes of one name": (again(linear(), "note"), "not_onnx"),
    "a note of two megabytes": (with_metadata(linear(), note="x" * 2_000_000), "model_too_large"),
    "a hundred thousand notes": (with_metadata(linear(), **{f"note{i:05}": "x" for i in range(100_000)}), None),
    "a manifest": (described(), None),
    "a manifest of brackets": (with_metadata(linear(), fogline_manifest="[" * 100_000), "bad_manifest"),
    "a manifest with an endless axis": (described(input_shape=[float("inf"), 32]), "bad_manifest"),
    "a manifest whose answers are numbers": (described(known_answers=[{"x": 5, "label": 0}]), "bad_manifest"),
    "a manifest with too many answers": (described(known_answers=[{"x": "", "label": 0}] * 100), "bad_manifest"),
}


@pytest.fixture(scope="module")
def answers():
    return inspected({name: content for name, (content, _) in CASES.items()})


@pytest.mark.parametrize("case", CASES)
def test_a_file_is_taken_or_refused_by_name(answers, case):
    _, code = CASES[case]
    said = answers[case]
    assert said.get("code") == code, said
    if code is not None:
        assert said["message"]


def test_what_takes_for_ever_is_ended():
    with pytest.raises(Corrupt) as refused:
        inspect_apart(looping(10**15), cpu_s=1)
    assert (refused.value.code, "1 s of computing" in refused.value.message) == ("inspection_died", True)


def test_an_error_of_the_inspection_is_its_own_code():
    with pytest.raises(Corrupt) as refused:
        inspect_apart(constant(800_000_000))
    assert refused.value.code == "model_too_large"


CODES = {code for _, code in CASES.values() if code} | {"model_does_not_run", "logits_not_finite", "inspection_died"}


def test_whatever_bits_flip_there_is_an_answer():
    rng = np.random.default_rng(20)
    sound = [artifact(), functions(2), nested(3), constant(10)]
    mutants = {}
    for i in range(240):
        content = bytearray(sound[i % 4])
        # Weights are most of a file, and any are right; what says how to read them lies at its ends.
        ends = np.r_[0:150, len(content) - 400 : len(content)] if i % 2 else np.arange(len(content))
        for place in rng.choice(ends, size=1 + i % 5, replace=False):
            content[place] ^= 1 << rng.integers(8)
        mutants[f"flipped {i}"] = bytes(content)
    for i in range(60):
        content = sound[i % 4]
        mutants[f"cut {i}"] = content[: rng.integers(len(content))]
    answers = inspected(mutants)
    codes = [said.get("code") for said in answers.values()]
    assert set(codes) - {None} <= CODES
    assert len(set(codes)) > 4
    assert codes.count(None) > 20
    died = {said["message"] for said in answers.values() if said.get("code") == "inspection_died"}
    assert not died
    assert all(said.get("code") for name, said in answers.items() if name.startswith("cut"))
