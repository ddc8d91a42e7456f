from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
import zstandard
from tiny_recipe import Tiny
from tiny_release import blob_of, trained

from fogline_server.compression.chain import Chain
from fogline_server.compression.engine import manifest_of, open_session, run
from fogline_server.compression.evaluate import evaluate
from fogline_server.compression.examples import Needs
from fogline_server.compression.export import export_module, export_onnx, load_model
from fogline_server.compression.methods.base import Parent
from fogline_server.compression.parent import parent_of
from fogline_server.compression.parity import parity
from fogline_server.compression.stamp import clear, coarse
from fogline_server.registry.forms import form_of
from fogline_shared.drift import Reference
from fogline_shared.errors import Corrupt, InvalidInput
from fogline_shared.manifest import KnownAnswer


def test_the_artifact_takes_raw_units_and_any_batch() -> None:
    recipe, (params, standardisation) = Tiny(), trained("student")
    model = export_onnx(recipe, "student", params, standardisation, "student_fp32")
    holdout = recipe.holdout()
    torch_says = recipe.evaluate(load_model(recipe, "student", params), holdout, standardisation)
    onnx_says = evaluate(model, holdout)
    assert onnx_says.confusion == torch_says.confusion
    assert onnx_says.loss == pytest.approx(torch_says.loss, rel=1e-4)
    session = open_session(model)
    assert [run(session, holdout.x[:n]).shape for n in (1, 3)] == [(1, 4), (3, 4)]


def test_the_same_parameters_give_the_same_bytes() -> None:
    recipe, (params, standardisation) = Tiny(), trained("student")
    one, two = (export_onnx(recipe, "student", params, standardisation, "student_fp32") for _ in range(2))
    assert one == two


class Blind(Tiny):
    """Has no data at the cloud."""

    def holdout(self):
        return None

    def transfer(self):
        return None


def test_an_artifact_and_its_forms_tell_how_real_inputs_are_distributed() -> None:
    recipe, (params, standardisation) = Tiny(), trained("student")
    model = export_onnx(recipe, "student", params, standardisation, "student_fp32")
    parent = parent_of(recipe, "student", params, standardisation, model, needs=Needs.CALIBRATION)
    form = form_of(Chain.parse("int8_static"), parent, recipe, "student_int8")
    wanted = Reference.of(recipe.holdout().x)
    assert wanted is not None
    assert [manifest_of(open_session(each)).reference for each in (model, form)] == [wanted, wanted]
    blind = export_onnx(Blind(), "student", params, standardisation, "student_fp32")
    assert manifest_of(open_session(blind)).reference is None, "noise is no reference"


def test_a_parameter_that_is_missing_is_named() -> None:
    recipe, (_, standardisation) = Tiny(), trained("student")
    model = recipe.model("student", seed=0)
    export_onnx(recipe, "student", blob_of(model), standardisation, "student_fp32")
    del model[1]._buffers["running_mean"]
    with pytest.raises(Corrupt) as error:
        export_onnx(recipe, "student", blob_of(model), standardisation, "student_fp32")
    assert (error.value.code, "1.running_mean" in error.value.message) == ("params_mismatch", True)


class Branching(torch.nn.Module):
    """Decides by the values, which a trace does not follow."""

    def __init__(self, on: float) -> None:
        super().__init__()
        self.on = on
        self.linear = torch.nn.Linear(6, 4)

    def forward(self, x):
        return self.linear(x) if x.sum() > self.on else -self.linear(x)


class OneBatch(torch.nn.Linear):
    """Takes the batch it was traced with for all there is."""

    def forward(self, x):
        return super().forward(x.reshape(int(x.shape[0]), 6))


class Chance(torch.nn.Linear):
    """Answers otherwise each time."""

    def forward(self, x):
        return super().forward(x) + torch.rand(4)


class Eigen(torch.nn.Linear):
    """Needs an operator that ONNX lacks."""

    def forward(self, x):
        return super().forward(x) + torch.linalg.svdvals(x)[:, None].sum()


class NotANumber(torch.nn.Linear):
    """Divides nothing by nothing."""

    def forward(self, x):
        return super().forward(x) * 0 / 0


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (Branching(on=0.0), "export_mismatch"),
        (OneBatch(6, 4), "not_exportable"),
        (Chance(6, 4), "export_mismatch"),
        (Eigen(6, 4), "not_exportable"),
        (NotANumber(6, 4), "params_not_finite"),
        (torch.nn.Linear(6, 5), "not_exportable"),
        (Branching(on=-1e9), ""),
    ],
)
def test_a_model_that_a_trace_does_not_tell_whole_is_refused(module: torch.nn.Module, code: str) -> None:
    x = np.random.default_rng(0).normal(size=(32, 6)).astype(np.float32)

    def export() -> str:
        try:
            export_module(module.eval(), x, input_name="input", output_name="logits", classes=4)
        except (Corrupt, InvalidInput) as error:
            return error.code
        return ""

    assert export() == code


class Wayward(Tiny):
    """A recipe whose model no tracer can follow, or that has the wrong number of outputs."""

    def model(self, size: str, *, seed: int):
        import torch

        class Lost(torch.nn.Module):
            def forward(self, x):
                raise RuntimeError("no way through")

        return Lost() if size == "student" else torch.nn.Flatten()


@pytest.mark.parametrize("size", ["student", "teacher"])
def test_a_recipe_that_does_not_export_is_refused_with_a_code(size: str) -> None:
    _, standardisation = trained("student")
    empty = blob_of(Wayward().model(size, seed=0))
    with pytest.raises(InvalidInput) as error:
        export_onnx(Wayward(), size, empty, standardisation, "student_fp32")
    assert error.value.code == "not_exportable"


def test_parity_is_of_the_largest_difference_and_of_labels() -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(6, 4).eval()
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    model = export_module(module, x, input_name="input", output_name="logits", classes=4)
    found = parity(module, model, x)
    assert (found.samples, found.label_agreement) == (40, 1.0)
    assert 0 <= found.max_abs_diff < 1e-5
    with torch.no_grad():
        module.bias[0] += 0.01
    with pytest.raises(Corrupt) as error:
        parity(module, model, x)
    assert (error.value.code, "0.01" in error.value.message) == ("export_mismatch", True)


def test_labels_must_agree_where_large_logits_would_hide_a_difference() -> None:
    module = torch.nn.Linear(6, 4).eval()
    with torch.no_grad():
        module.weight.mul_(0.1)
        module.bias.fill_(1e4)
    x = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    model = export_module(module, x, input_name="input", output_name="logits", classes=4)
    with torch.no_grad():
        module.bias[0] += 1  # a ten-thousandth of the largest logit, and every label
    with pytest.raises(Corrupt, match="10 allowed") as error:
        parity(module, model, x)
    assert error.value.code == "export_mismatch"


def test_known_answers_are_clear_and_of_every_class_before_a_second_of_one() -> None:
    logits = np.array([[2, 0, 0], [9, 0, 0], [0, 5, 0], [0, 6, 0], [0, 0, 2], [8, 0, 0]], dtype=np.float32)
    assert sorted(clear(logits, 3)) == [1, 2, 4]
    assert sorted(clear(logits, 5)) == [1, 2, 3, 4, 5]
    assert clear(logits, 6)[-1] == 0


def test_coarse_examples_are_near_and_pack_into_fewer_bytes() -> None:
    x = np.random.default_rng(0).normal(size=(4, 6, 128)).astype(np.float32)
    assert np.abs(coarse(x) - x).max() <= np.abs(x).max() / 128
    assert np.array_equal(coarse(np.arange(256, dtype=np.float32)), np.arange(256)), "pixels stay as they are"

    def sent(array: np.ndarray) -> int:
        return len(zstandard.compress(KnownAnswer.of(array, 0).x.encode(), 19))

    assert sent(coarse(x)) < 0.7 * sent(x)


def test_known_answers_stay_while_their_margins_move() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (200, 4)).astype(np.float32)
    logits[np.arange(200), np.arange(200) % 4] += 8
    moved = logits + rng.normal(0, 0.3, logits.shape).astype(np.float32)
    assert clear(logits, 8) == clear(moved, 8)


def test_equal_parameters_are_stored_each_by_itself_where_a_quantizer_finds_them() -> None:
    layers = [torch.nn.Linear(6, 6) for _ in range(3)]
    for layer in layers:
        torch.nn.init.zeros_(layer.bias)
    x = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    network = torch.nn.Sequential(*layers).eval()
    model = export_module(network, x, input_name="input", output_name="logits", classes=6)
    assert "Identity" not in [node.op_type for node in onnx.load_from_string(model).graph.node]
    Chain.parse("int8_static").compress(Parent(model=model, examples=x, calibration=x))
