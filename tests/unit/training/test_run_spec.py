from __future__ import annotations

import subprocess
import sys

import pytest
from tiny_recipe import Tiny

from fogline_server.training.spec import RunSpec
from fogline_shared.eligibility import Eligibility
from fogline_shared.errors import InvalidInput


def test_defaults_come_from_the_recipe_and_survive_json() -> None:
    asked = Eligibility(charging=True)
    spec = RunSpec(recipe="tiny", tags=("a",), plan={"epochs": 3}, eligibility=asked).resolved(Tiny())
    assert spec.rounds == 2
    assert RunSpec.from_json(spec.as_json()).as_json() == spec.as_json()
    assert RunSpec.from_json(spec.as_json()).eligibility == asked


@pytest.mark.parametrize(
    ("spec", "code", "says"),
    [
        ({"rounds": 0}, "invalid_run", "rounds must be an integer from 1 to"),
        ({"rounds": 2.5}, "invalid_run", "rounds"),
        ({"rounds": True}, "invalid_run", "rounds"),
        ({"quorum": 0}, "invalid_run", "quorum must be a number from 0.01 to 1"),
        ({"quorum": float("nan")}, "invalid_run", "quorum"),
        ({"min_devices": 5, "max_devices": 4}, "invalid_run", "max_devices"),
        ({"plan": {"momentum": 1}}, "invalid_run", "fields: epochs"),
        ({"plan": {"learning_rate": 0}}, "invalid_run", "plan.learning_rate must be a number from 1e-07 to 10"),
        ({"plan": {"epochs": 1.5}}, "invalid_run", "plan.epochs"),
        ({"strategy": "fedsgd"}, "unknown_strategy", "fedavg"),
        ({"strategy": "fedtrimmedavg", "strategy_options": {"beta": 0.5}}, "invalid_option", "0 to 0.49"),
        ({"strategy": "fedavg", "strategy_options": {"beta": 0.5}}, "invalid_option", "no option 'beta'"),
        ({"codec": "gzip"}, "unknown_codec", "eden, fp16, int8, none, topk"),
        ({"codec": "int8", "codec_options": {"bits": 4}}, "invalid_option", "no option 'bits'"),
        ({"codec": "topk", "codec_options": {"fraction": 0.9}}, "invalid_option", "0.0001 to 0.5"),
        ({"init_from": "abc"}, "invalid_run", "digest"),
        ({"extensions": [3, 0]}, "invalid_run", "extensions must be an integer from 1 to"),
        ({"size": "giant"}, "unknown_size", "teacher, student"),
    ],
)
def test_bad_option_is_named_with_its_range(spec: dict[str, object], code: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        RunSpec(**{"recipe": "tiny", **spec}).resolved(Tiny())
    assert caught.value.code == code


def test_unknown_field_of_stored_json_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no field 'colour'"):
        RunSpec.from_json({"recipe": "tiny", "colour": "red"})
    with pytest.raises(InvalidInput, match="recipe"):
        RunSpec.from_json({})
    with pytest.raises(InvalidInput, match=r"eligibility\.colour is no condition"):
        RunSpec.from_json({"recipe": "tiny", "eligibility": {"colour": "red"}})


def test_learning_rate_falls_by_half_a_cosine_and_seeds_differ() -> None:
    spec = RunSpec(recipe="tiny", rounds=4, seed=7).resolved(Tiny())
    plans = [spec.train_plan(Tiny(), number) for number in (1, 3, 4)]
    assert plans[0].learning_rate == 1e-2
    assert plans[1].learning_rate == pytest.approx(5e-3)
    assert plans[2].learning_rate > 0
    assert len({plan.seed for plan in plans}) == 3


def test_an_extension_has_a_cosine_of_its_own_and_leaves_the_rounds_before_it_alone() -> None:
    spec = RunSpec(recipe="tiny", rounds=4, seed=7).resolved(Tiny())
    extended = RunSpec.from_json(spec.extended(2).as_json())
    assert (extended.total_rounds, extended.extended(3).total_rounds) == (6, 9)
    for number in range(1, 5):
        assert extended.train_plan(Tiny(), number) == spec.train_plan(Tiny(), number)
    assert extended.train_plan(Tiny(), 5).learning_rate == 1e-2
    assert extended.train_plan(Tiny(), 6).learning_rate == pytest.approx(5e-3)
    with pytest.raises(InvalidInput, match="rounds must be an integer from 1 to"):
        spec.extended(0)


def test_strategy_decides_the_proximal_term_unless_the_run_does() -> None:
    prox = RunSpec(recipe="tiny", strategy="fedprox", strategy_options={"proximal_mu": 0.3}).resolved(Tiny())
    assert prox.train_plan(Tiny(), 1).proximal_mu == 0.3
    asked = RunSpec(recipe="tiny", strategy="fedprox", plan={"proximal_mu": 0.1}).resolved(Tiny())
    assert asked.train_plan(Tiny(), 1).proximal_mu == 0.1


def test_creating_a_run_loads_neither_torch_nor_flwr() -> None:
    code = """
import sys
from fogline_server.training import jobs, offers, service
from fogline_server.training.spec import RunSpec
from fogline_shared.recipe import load_recipe
RunSpec(recipe="smartwatch", strategy="fedadam").resolved(load_recipe("smartwatch"))
print(sorted({"torch", "flwr"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
