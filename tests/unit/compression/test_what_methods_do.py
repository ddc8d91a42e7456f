"""Each method does to a model what its name says; that it still answers is the contract tests' business."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from fogline_recipes.smartwatch.models import Residual
from fogline_server.compression.chain import Chain
from fogline_server.compression.engine import FloatArray, open_session, run
from fogline_server.compression.export import export_module
from fogline_server.compression.methods.base import Candidate, Parent, load_method

STEPS = {"steps": 3}


def parent_of(module: nn.Module, x: FloatArray, classes: int) -> Parent:
    model = export_module(module.eval(), x, input_name="input", output_name="logits", classes=classes)
    return Parent(model=model, module=module, examples=x, calibration=x, transfer=x)


@pytest.fixture(scope="module")
def parent() -> Parent:
    """An untrained network with a residual block."""
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 6, 32)).astype(np.float32)
    start = nn.Sequential(nn.Conv1d(6, 16, 5, 2, 2, bias=False), nn.BatchNorm1d(16), nn.ReLU())
    end = nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(16, 7))
    return parent_of(nn.Sequential(start, Residual(16), end), x, 7)


def changed(name: str, parent: Parent, **options: object) -> nn.Module:
    module = load_method(name, options).apply(Candidate.of(parent)).module
    assert module is not None
    return module


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [layer.weight.detach() for layer in module.modules() if isinstance(layer, (nn.Conv1d, nn.Linear))]


def test_pruning_removes_channels_that_residual_blocks_share(parent: Parent) -> None:
    pruned = changed("prune_channels", parent, share=0.5, rounds=2, steps=2)
    assert [tuple(weight.shape) for weight in weights(pruned)] == [(8, 6, 5), (8, 8, 5), (8, 8, 5), (7, 8)]


def test_sparsity_is_reached_and_stays_through_training_and_int8(parent: Parent) -> None:
    sparse = changed("sparse_magnitude", parent, sparsity=0.7, rounds=2, **STEPS)
    tuned = changed("finetune", Parent(**{**vars(parent), "module": sparse}), **STEPS)
    for before, after in zip(weights(sparse), weights(tuned), strict=True):
        assert (before == 0).float().mean() == pytest.approx(0.7, abs=0.02)
        assert (after[before == 0] == 0).all()
        assert not torch.equal(before, after)
    model = onnx.load_from_string(
        Chain.parse("sparse_magnitude:sparsity=0.7:rounds=1:steps=0,int8_static").compress(parent)
    )
    codes = [onnx.numpy_helper.to_array(v) for v in model.graph.initializer if v.data_type == onnx.TensorProto.INT8]
    large = [c for c in codes if c.size > 1000]
    assert large
    assert all((c == 0).mean() > 0.69 for c in large)


def test_of_four_neighbours_two_stay(parent: Parent) -> None:
    for weight in weights(changed("sparse_n_m", parent, **STEPS)):
        rows = weight.flatten(1)
        groups = rows[:, : rows.shape[1] // 4 * 4].reshape(-1, 4)
        assert ((groups != 0).sum(1) <= 2).all()


def test_low_rank_keeps_answers_when_it_keeps_the_energy() -> None:
    torch.manual_seed(0)
    narrow = nn.Sequential(nn.Linear(64, 4), nn.Linear(4, 64))
    wide = nn.Linear(64, 64)
    wide.weight = nn.Parameter(narrow[1].weight @ narrow[0].weight)
    x = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    parent = parent_of(nn.Sequential(wide, nn.ReLU(), nn.Linear(64, 3)), x, 3)
    thin = changed("low_rank", parent, energy=0.9999)
    assert [tuple(w.shape) for w in weights(thin)] == [(4, 64), (64, 4), (3, 64)]
    np.testing.assert_allclose(thin(torch.from_numpy(x)).detach(), run(open_session(parent.model), x), atol=1e-2)


def test_quantization_aware_training_leaves_weights_on_the_grid_that_int8_takes(parent: Parent) -> None:
    aware = changed("qat", parent, **STEPS)
    assert not [m for m in aware.modules() if isinstance(m, nn.BatchNorm1d)]
    for weight in weights(aware):
        steps = weight / (weight.abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True) / 64)
        assert (steps - steps.round()).abs().max() < 1e-3


def test_binary_weights_are_bits(parent: Parent) -> None:
    binary = Chain.parse("binarize:steps=3").compress(parent)
    model = onnx.load_from_string(binary)
    bits = sum(
        8 * v.dims[0] for v in model.graph.initializer if v.data_type == onnx.TensorProto.UINT8 and len(v.dims) == 2
    )
    inner = sum(w.numel() for w in weights(parent.module)[1:-1])
    assert inner <= bits < inner + 8 * 2
    assert len(binary) < len(parent.model) / 2


@pytest.mark.parametrize("options", ["qdq=true", "calibrator=entropy", "calibrator=percentile", "reduce_range=false"])
def test_int8_in_each_of_its_ways_runs(parent: Parent, options: str) -> None:
    model = Chain.parse(f"int8_static:{options}").compress(parent)
    kinds = {node.op_type for node in onnx.load_from_string(model).graph.node}
    assert ("QLinearConv" in kinds) is (options != "qdq=true")


def test_large_dense_layers_stay_packed_in_memory_if_asked() -> None:
    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)
    parent = parent_of(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)), x, 3)
    model = Chain.parse("weight_only:bits=4:matmul_nbits=true").compress(parent)
    assert {"MatMulNBits"} <= {node.op_type for node in onnx.load_from_string(model).graph.node}
    difference = run(open_session(model), x) - run(open_session(parent.model), x)
    assert np.abs(difference).max() < 0.2
