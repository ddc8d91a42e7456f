"""What every compression method promises; a new module in ``compression/methods`` is tested at once."""

from __future__ import annotations

import pytest
from tiny_recipe import Tiny
from tiny_release import trained

from fogline_server.compression.engine import open_session
from fogline_server.compression.evaluate import agreement, cost, evaluate
from fogline_server.compression.examples import calibration_examples
from fogline_server.compression.export import export_onnx
from fogline_server.compression.methods.base import PACKAGE, Float, load_method
from fogline_shared.errors import InvalidInput
from fogline_shared.plugins import module_names

METHODS = module_names(PACKAGE)


@pytest.fixture(scope="module")
def parent() -> Float:
    params, standardisation = trained("student")
    model = export_onnx(Tiny(), "student", params, standardisation, "student_fp32")
    return Float(model=model, calibration=calibration_examples(Tiny()))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_keeps_signature_and_nearly_all_answers(name: str, parent: Float) -> None:
    smaller = load_method(name).compress(parent)
    ours, theirs = open_session(smaller), open_session(parent.model)
    for side in ("get_inputs", "get_outputs"):
        assert [(v.name, v.type) for v in getattr(ours, side)()] == [(v.name, v.type) for v in getattr(theirs, side)()]
    unseen = Tiny().unseen()
    assert agreement(smaller, parent.model, unseen.x) > 0.95
    assert evaluate(smaller, unseen).accuracy > evaluate(parent.model, unseen).accuracy - 0.02
    assert cost(smaller, unseen.x[0])["bytes"] <= cost(parent.model, unseen.x[0])["bytes"]


@pytest.mark.parametrize("name", METHODS)
def test_a_method_gives_the_same_bytes_again_and_says_what_it_buys(name: str, parent: Float) -> None:
    method = load_method(name)
    assert method.compress(parent) == method.compress(parent)
    assert method.buys


@pytest.mark.parametrize("name", METHODS)
def test_an_unknown_option_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as error:
        load_method(name, {"no_such_option": 1})
    assert error.value.code == "invalid_method_options"


def test_an_unknown_method_is_refused_with_the_known_names() -> None:
    with pytest.raises(InvalidInput) as error:
        load_method("magic")
    assert error.value.code == "unknown_method"
    assert "int8_static" in error.value.message


def test_int8_without_any_examples_is_refused(parent: Float) -> None:
    with pytest.raises(InvalidInput) as error:
        load_method("int8_static").compress(Float(model=parent.model, calibration=None))
    assert error.value.code == "no_calibration_data"
