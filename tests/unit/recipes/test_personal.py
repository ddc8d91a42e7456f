"""A personal head: fitted on a device's own data, kept only if it wins there, on a body that stays as it was released."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fogline_client.inference.predictor import Predictor
from fogline_recipes.heads import behead
from fogline_recipes.personal import Personalisation, personalise, split
from fogline_server.compression.chain import Chain
from fogline_server.compression.methods.base import Parent
from fogline_server.compression.stamp import write_manifest
from fogline_shared.errors import Corrupt, InvalidInput
from fogline_shared.manifest import KnownAnswer, Manifest
from fogline_shared.recipe import Dataset

SHAPE, CLASSES = (2, 3), ("left", "right", "still")
MANIFEST = Manifest(
    recipe="toy",
    variant="student_fp32",
    input_name="input",
    input_shape=SHAPE,
    output_name="logits",
    classes=CLASSES,
    known_answers=(KnownAnswer.of(np.ones(SHAPE, np.float32), 0),),
)


def released(*, head: bool = True) -> bytes:
    """Flatten, two layers, a head that has not learned anything of use; without ``head`` it ends in Softmax."""
    rng = np.random.default_rng(0)
    values = {
        "w1": rng.normal(size=(16, 6)),
        "b1": rng.normal(size=16),
        "w2": rng.normal(size=(3, 16)),
        "b2": np.array([50.0, 0.0, 0.0]),
    }
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w1", "b1"], ["hidden"], transB=1),
        helper.make_node("Relu", ["hidden"], ["features"]),
        helper.make_node("Gemm", ["features", "w2", "b2"], ["logits" if head else "scores"], transB=1),
    ]
    if not head:
        nodes.append(helper.make_node("Softmax", ["scores"], ["logits"]))
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return write_manifest(model.SerializeToString(), MANIFEST)


def int8(artifact: bytes) -> bytes:
    parent = Parent(model=artifact, examples=own().x, calibration=own().x)
    return write_manifest(Chain.parse("int8_static").compress(parent), MANIFEST)


def own(n: int = 120, *, groups: int | None = 12) -> Dataset:
    """Labels follow the largest of three values: learnable by a head on random features."""
    x = np.random.default_rng(1).normal(size=(n, *SHAPE)).astype(np.float32)
    y = x[:, 0].argmax(axis=1).astype(np.int64)
    return Dataset(x=x, y=y, groups=None if groups is None else y * 100 + np.arange(n) % groups)


@pytest.mark.parametrize("form", [lambda artifact: artifact, int8], ids=["float", "int8"])
def test_a_head_that_wins_is_an_artifact_that_predicts_so_on_a_body_as_released(form, tmp_path) -> None:
    artifact, data = form(released()), own()
    outcome = personalise(artifact, data)
    assert outcome.artifact is not None
    assert outcome.personal > outcome.released + 0.2
    (tmp_path / "personal.onnx").write_bytes(outcome.artifact)
    with Predictor.from_file(tmp_path / "personal.onnx") as predictor:
        answers = [answer.label for answer in predictor.predict_many(data.x)]
        assert predictor.model.manifest.variant == "student_fp32_personal"
        assert predictor.model.manifest.known_answers == ()
    _, check = split(data)
    assert np.mean(np.array(answers)[check] == data.y[check]) == pytest.approx(outcome.personal)
    assert np.array_equal(behead(outcome.artifact).features(data.x), behead(artifact).features(data.x))


@pytest.mark.parametrize("form", [lambda artifact: artifact, int8], ids=["float", "int8"])
def test_the_released_head_put_back_on_answers_as_the_release(form) -> None:
    import onnxruntime as ort

    artifact, x = form(released()), own().x
    taken = behead(artifact)
    again = taken.wearing(taken.head).SerializeToString()
    was, now = (ort.InferenceSession(model).run(None, {"input": x})[0] for model in (artifact, again))
    # The int8 head rounds its logits to 256 steps; the float one does not.
    assert np.abs(was - now).max() <= np.ptp(was) / 128


def test_a_head_that_does_not_win_by_the_margin_is_not_kept() -> None:
    outcome = personalise(released(), own(), Personalisation(margin=0.99))
    assert outcome.artifact is None
    assert outcome.gain < 0.99


def test_the_same_data_gives_the_same_bytes() -> None:
    assert personalise(released(), own()).artifact == personalise(released(), own()).artifact


def test_groups_are_not_torn_apart_and_every_class_with_two_is_validated() -> None:
    data = own()
    fit, check = split(data)
    assert not set(data.groups[fit]) & set(data.groups[check])
    assert set(data.y[check]) == set(data.y[fit]) == {0, 1, 2}
    assert sorted([*fit, *check]) == list(range(len(data)))


def test_one_group_a_class_leaves_nothing_to_validate() -> None:
    with pytest.raises(InvalidInput) as caught:
        personalise(released(), own(groups=1))
    assert caught.value.code == "too_little_data"


def test_what_has_no_linear_head_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        personalise(released(head=False), own())
    assert caught.value.code == "no_head"


def test_damaged_bytes_are_refused() -> None:
    with pytest.raises(Corrupt) as caught:
        personalise(released()[:100], own())
    assert caught.value.code == "not_a_model"


def test_a_personal_artifact_is_a_sound_onnx_file() -> None:
    onnx.checker.check_model(onnx.load_model_from_string(personalise(released(), own()).artifact))
