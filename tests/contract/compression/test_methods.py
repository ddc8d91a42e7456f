"""What every compression method promises; a new module in ``compression/methods`` is tested at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import cache

import numpy as np
import onnx
import pytest
import torch
from tiny_recipe import Tiny, signals
from tiny_release import trained

from fogline_server.compression.chain import Chain, Link
from fogline_server.compression.engine import open_session
from fogline_server.compression.evaluate import agreement, evaluate
from fogline_server.compression.examples import Needs
from fogline_server.compression.export import OPSET, export_module, fused, load_model
from fogline_server.compression.methods.base import PACKAGE, Candidate, Parent, Stage, load_method
from fogline_server.registry.foreign import check_foreign
from fogline_shared.errors import FoglineError, InvalidInput
from fogline_shared.plugins import load_module, module_names
from fogline_shared.recipe import Standardisation

METHODS = module_names(PACKAGE)


def options(name: str, **wanted: object) -> dict[str, object]:
    """Those of ``wanted`` that the method has."""
    return {k: v for k, v in wanted.items() if k in {f.name for f in fields(load_module(PACKAGE, name).METHOD)}}


def short(name: str) -> Chain:
    """The method alone, its training cut to what a tiny network needs."""
    return Chain(links=(Link(method=name, options=options(name, steps=60, rounds=2, learning_rate=3e-3)),))


HAS_STEPS = [name for name in METHODS if options(name, steps=1)]
TRAINS = [name for name in METHODS if Needs.TRANSFER in load_method(name).needs]
CALIBRATES = [name for name in METHODS if Needs.CALIBRATION in load_method(name).needs]
# What takes half of eight channels, or of all weights, costs something after sixty steps of training.
CUTS, COSTLY = ("binarize", "low_rank", "prune_channels", "sparse_magnitude", "sparse_n_m"), 0.25
IN_TORCH = [name for name in METHODS if load_method(name).takes is Stage.TORCH]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@cache
def parent() -> Parent:
    params, standardisation = trained("student")
    module = fused(load_model(Tiny(), "student", params), standardisation, rank=2)
    holdout = Tiny().holdout()
    model = export_module(module, holdout.x, input_name="input", output_name="logits", classes=4)
    return Parent(
        model=model,
        module=module,
        examples=holdout.x,
        calibration=holdout.x,
        labels=holdout.y,
        transfer=signals(10_002, 400).x,
    )


@cache
def candidate(name: str) -> Candidate:
    return short(name).links[0].load().apply(Candidate.of(parent()))


def compressed(name: str) -> bytes:
    return candidate(name).onnx()


def code_of(chain: Chain, given: Parent) -> str:
    with pytest.raises(FoglineError) as error:
        chain.compress(given)
    return error.value.code


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_signature_and_nearly_all_answers(name: str) -> None:
    ours, theirs = open_session(compressed(name)), open_session(parent().model)
    for side in ("get_inputs", "get_outputs"):
        assert [(v.name, v.type) for v in getattr(ours, side)()] == [(v.name, v.type) for v in getattr(theirs, side)()]
    unseen = Tiny().unseen()
    tolerance = COSTLY if name in CUTS else 0.05
    assert agreement(compressed(name), parent().model, unseen.x) > 1 - tolerance
    assert evaluate(compressed(name), unseen).accuracy > evaluate(parent().model, unseen).accuracy - tolerance


@pytest.mark.parametrize("name", METHODS)
def test_a_method_writes_what_every_device_takes(name: str) -> None:
    model = compressed(name)
    check_foreign(model)
    (opset,) = [each.version for each in onnx.load_from_string(model).opset_import if not each.domain]
    assert opset == (21 if name == "int16_activations" else OPSET)
    (given,), (answer,) = open_session(model).get_inputs(), open_session(model).get_outputs()
    assert (given.shape, answer.shape) == (["batch", 6, 32], ["batch", 4])


@pytest.mark.parametrize("name", [name for name in IN_TORCH if load_method(name).leaves is Stage.TORCH])
def test_onnx_runtime_answers_as_torch_does(name: str) -> None:
    module, unseen = candidate(name).module, Tiny().unseen()
    assert module is not None
    with torch.no_grad():
        right = module(torch.from_numpy(unseen.x)).argmax(1).numpy() == unseen.y
    assert evaluate(compressed(name), unseen).accuracy == pytest.approx(right.mean(), abs=0.005)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_the_same_bytes_again_and_says_what_it_buys(name: str) -> None:
    before = {key: value.clone() for key, value in parent().module.state_dict().items()}
    torch.rand(3)  # what was drawn elsewhere does not matter
    assert short(name).compress(parent()) == compressed(name)
    assert all(torch.equal(before[key], value) for key, value in parent().module.state_dict().items())
    assert load_method(name).buys


@pytest.mark.parametrize("name", METHODS)
def test_unknown_options_and_wrong_types_are_refused(name: str) -> None:
    wrong = [{"no_such_option": 1}]
    wrong += [{field.name: [1]} for field in fields(load_module(PACKAGE, name).METHOD)]
    for given in wrong:
        with pytest.raises(InvalidInput) as error:
            load_method(name, given)
        assert error.value.code == "invalid_method_options"
        assert str(next(iter(given))) in error.value.message


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("prune_channels", {"share": 1.0}),
        ("sparse_magnitude", {"sparsity": -0.1}),
        ("sparse_n_m", {"n": 4}),
        ("low_rank", {"energy": 2.0}),
        ("weight_only", {"bits": 3}),
        ("weight_only", {"block": 24, "matmul_nbits": True}),
        ("int8_static", {"calibrator": "guess"}),
        *((name, {"steps": -1}) for name in HAS_STEPS),
    ],
)
def test_options_out_of_range_are_refused(name: str, given: dict[str, object]) -> None:
    with pytest.raises(InvalidInput) as error:
        load_method(name, given)
    assert error.value.code == "invalid_method_options"


@pytest.mark.parametrize("name", METHODS)
def test_weights_that_are_not_finite_are_refused(name: str) -> None:
    recipe, (params, standardisation) = Tiny(), trained("student")
    module = fused(load_model(recipe, "student", params), standardisation, rank=2)
    with torch.no_grad():
        module.model[3].weight[0, 0, 0] = torch.nan
    assert code_of(short(name), replace(parent(), module=module)) == "params_not_finite"


@pytest.mark.parametrize("transfer", [None, np.zeros((0, 6, 32), np.float32)], ids=["none", "empty"])
@pytest.mark.parametrize("name", TRAINS)
def test_training_without_a_transfer_set_is_refused(name: str, transfer: np.ndarray | None) -> None:
    assert code_of(short(name), replace(parent(), transfer=transfer)) == "no_transfer_data"


@pytest.mark.parametrize("name", CALIBRATES)
def test_calibration_without_examples_or_of_one_class_is_refused(name: str) -> None:
    assert code_of(short(name), replace(parent(), calibration=None, labels=None)) == "no_calibration_data"
    one = parent().labels == 1
    given = replace(parent(), calibration=parent().calibration[one], labels=parent().labels[one])
    assert code_of(short(name), given) == "one_class_calibration"


@pytest.mark.parametrize("name", METHODS)
def test_a_method_says_which_data_it_needs(name: str) -> None:
    assert (name in TRAINS) == (name in HAS_STEPS)
    if name in HAS_STEPS:
        assert load_method(name, {"steps": 0}).needs is Needs.NOTHING
    given = replace(parent(), calibration=None, labels=None, transfer=None)
    if name in (*TRAINS, *CALIBRATES):
        assert code_of(short(name), given) in {"no_transfer_data", "no_calibration_data"}
    else:
        assert short(name).compress(given) == compressed(name)


@pytest.mark.parametrize("name", METHODS)
def test_an_imported_file_has_no_torch_model(name: str) -> None:
    given = replace(parent(), module=None)
    if name in IN_TORCH:
        assert code_of(short(name), given) == "no_torch_model"
    else:
        assert short(name).compress(given) == compressed(name)


class Unexportable(torch.nn.Module):
    """Runs and trains; ONNX has no operator for it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(32, 16), torch.nn.Linear(16, 16), torch.nn.Linear(16, 4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second, last = self.layers
        return last(second(torch.cummax(first(x[:, 0]), 1).values))


class Untraceable(Unexportable):
    """Its way depends on its values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else super().forward(-x)


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_graph_that_does_not_export_is_refused(name: str) -> None:
    module = fused(Unexportable(), Standardisation(mean=[0.0] * 6, scale=[1.0] * 6), rank=2)
    assert code_of(short(name), replace(parent(), module=module)) == "not_exportable"


def test_a_graph_that_cannot_be_traced_is_refused_by_the_method_that_traces() -> None:
    module = fused(Untraceable(), Standardisation(mean=[0.0] * 6, scale=[1.0] * 6), rank=2)
    assert code_of(short("qat"), replace(parent(), module=module)) == "not_traceable"


def test_an_unknown_method_is_refused_with_the_known_names() -> None:
    with pytest.raises(InvalidInput) as error:
        load_method("magic")
    assert error.value.code == "unknown_method"
    assert "int8_static" in error.value.message
