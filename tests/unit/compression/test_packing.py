"""Packed weights: what ONNX Runtime unpacks is what was packed, and it does so once, when the file is loaded."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fogline_server.compression import packing
from fogline_server.compression.engine import open_session, run


def dense(weight: np.ndarray) -> bytes:
    """One layer: x (n, in) → x @ weight.T."""
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], transB=1)],
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", len(weight)])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return model.SerializeToString()


@pytest.mark.parametrize("shape", [(8, 32), (7, 37), (13, 21)])
@pytest.mark.parametrize("bits", [1, 4, 8])
def test_codes_come_back_as_they_were(bits: int, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(bits)
    groups = -(-shape[0] * shape[1] // 10)
    high = 2 ** (bits - 1)
    values = rng.choice([-1, 1], (groups, 10)) if bits == 1 else rng.integers(-high, high, (groups, 10))
    scales = rng.uniform(0.1, 2, (groups, 1)).astype(np.float32)
    wanted = (values * scales).astype(np.float32).ravel()[: shape[0] * shape[1]].reshape(shape)
    original = rng.normal(size=shape).astype(np.float32)
    packed = packing.rewrite(dense(original), lambda name, w: packing.codes(name, w, values, scales, bits))
    eye = np.eye(shape[1], dtype=np.float32)
    np.testing.assert_allclose(run(open_session(packed), eye).T, wanted, rtol=1e-6)


def test_the_runtime_folds_the_unpacking_away(tmp_path) -> None:
    weight = np.sign(np.random.default_rng(0).normal(size=(32, 64)))
    scales = np.ones((32, 1), np.float32)
    packed = packing.rewrite(dense(weight), lambda name, w: packing.codes(name, w, weight.astype(int), scales, 1))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(packed, options, providers=["CPUExecutionProvider"])
    assert [node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node] == ["Gemm"]
    assert len(packed) < len(dense(weight)) / 5


def test_small_weights_stay_as_they_are() -> None:
    model = dense(np.ones((3, 4)))
    assert onnx.load_from_string(packing.rewrite(model, packing.half)) == onnx.load_from_string(model)


def test_values_beyond_half_precision_are_clipped_not_infinite() -> None:
    packed = packing.rewrite(dense(np.full((16, 16), 1e6)), packing.half)
    assert np.isfinite(run(open_session(packed), np.ones((1, 16), np.float32))).all()
