"""Which models the holdout gate lets through."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from tiny_recipe import Tiny

from fogline_server.training.gate import Gate
from fogline_server.training.spec import RunSpec
from fogline_shared.errors import Conflict, InvalidInput
from fogline_shared.recipe import Evaluation, Recipe

FINE = [np.zeros(3, np.float32)]


def holdout(accuracy: float, loss: float = 1.0) -> Evaluation:
    return Evaluation(examples=1000, accuracy=accuracy, loss=loss, confusion=[[1]])


def test_a_drop_is_measured_in_points_and_the_limit_itself_is_allowed() -> None:
    gate = Gate(max_drop=5)
    assert gate.refuses(3, holdout(0.9), holdout(0.85), FINE) is None
    assert gate.refuses(3, holdout(0.5), holdout(0.9), FINE) is None
    refused = gate.refuses(3, holdout(0.9), holdout(0.849), FINE)
    assert refused is not None
    assert refused["code"] == "holdout_drop"
    assert "90.00 % before round 3, 84.90 % after it: 5.10 points, allowed are 5" in refused["message"]


@pytest.mark.parametrize(
    ("loss", "arrays"), [(float("nan"), FINE), (float("inf"), FINE), (1.0, [*FINE, np.array([np.nan])])]
)
def test_what_is_not_finite_is_refused_however_accurate(loss: float, arrays: list) -> None:
    refused = Gate(max_drop=100).refuses(1, holdout(0.1), holdout(0.9, loss), arrays)
    assert refused is not None
    assert refused["code"] == "model_not_finite"
    assert Gate().refuses(1, holdout(0.1), holdout(0.9, loss), arrays) is None, "there is no gate"


def test_patience_and_a_missing_holdout() -> None:
    gate = Gate(max_drop=0, patience=2)
    gate.check_patience(1, "x")
    with pytest.raises(Conflict, match="rounds_refused: 2 rounds in a row were refused; the last: x"):
        gate.check_patience(2, "x")
    with pytest.raises(InvalidInput, match="gate_without_holdout"):
        gate.check_holdout("tiny", None)
    Gate().check_holdout("tiny", None)


class Blind(Tiny):
    holdout = Recipe.holdout


def test_a_run_with_a_gate_and_no_holdout_is_refused_when_it_is_submitted() -> None:
    gated = RunSpec(recipe="tiny", gate=Gate(max_drop=5))
    with pytest.raises(InvalidInput, match="recipe tiny has no holdout") as caught:
        gated.resolved(Blind())
    assert caught.value.code == "gate_without_holdout"
    assert gated.resolved(Tiny()).gate.on
    assert not RunSpec(recipe="tiny").resolved(Blind()).gate.on, "without a gate none is needed"


@pytest.mark.parametrize(
    "fields", [{"max_drop": -1}, {"max_drop": 101}, {"patience": 0}, {"drop": 1}, {"max_drop": "1"}]
)
def test_what_is_out_of_range_is_refused(fields: dict) -> None:
    with pytest.raises(InvalidInput, match=r"invalid_run: gate[. ]"):
        Gate.from_json(fields)
    assert Gate.from_json(asdict(Gate(max_drop=2.5))) == Gate(max_drop=2.5)
