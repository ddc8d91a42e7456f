"""A simulation that cannot be right is refused before it starts, in words."""

from __future__ import annotations

import pickle

import pytest
from tiny_recipe import Tiny

from fogline_recipes.smartwatch import Smartwatch
from fogline_server.simulation.spec import SimulationSpec, keys_of
from fogline_server.training.spec import RunSpec
from fogline_shared.errors import InvalidInput

RUN = RunSpec(recipe="tiny").resolved(Tiny())
KEYS = ({"seed": "0"}, {"seed": "1"})


def spec(**fields: object) -> SimulationSpec:
    return SimulationSpec(**{"run": RUN, "keys": KEYS, "devices": 10, **fields})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"devices": 0}, "devices must be an integer from 1"),
        ({"cohort": 11}, "cohort must be an integer from 1 to 10"),
        ({"samples": 0}, "samples must be an integer from 1"),
        ({"dropout": 1.5}, "dropout must be a number from 0 to 1"),
        ({"dropout": float("nan")}, "dropout must be"),
        ({"speed": 0.0}, "speed must be"),
        ({"spread": -1.0}, "spread must be"),
        ({"split": "random"}, "split must be one of key, dirichlet:NUMBER, shards:NUMBER; got 'random'"),
        ({"split": "dirichlet"}, "split dirichlet must be a number from 0.001"),
        ({"split": "dirichlet:0"}, "split dirichlet must be a number from 0.001"),
        ({"split": "dirichlet:nan"}, "split dirichlet must be"),
        ({"split": "shards:1.5"}, "split shards must be an integer"),
        ({"split": "key:3"}, "split key takes no number"),
        ({"attack": "magic", "attackers": 0.1}, "attack must be one of sign_flip:NUMBER"),
        ({"attack": "sign_flip:lots", "attackers": 0.1}, "attack sign_flip must be a number"),
        ({"attack": "nan"}, "attackers need both"),
        ({"attackers": 0.1}, "attackers need both"),
        ({"availability": "sometimes"}, "availability must be one of always, diurnal:HOURS, trace:FILE"),
        ({"availability": "diurnal:25"}, "availability diurnal must be a number from 0.1 to 24"),
        ({"keys": ()}, "no device whose data"),
        ({"cohort": 1}, "min_devices must be at most the cohort's 1, got 2"),
    ],
)
def test_what_is_out_of_range_is_named(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec(**fields)
    assert caught.value.code == "invalid_simulation"
    assert said in caught.value.message


def test_it_reaches_another_process_whole() -> None:
    sent = spec(split="dirichlet:0.5", attack="sign_flip", attackers=0.2, availability="diurnal:8")
    assert pickle.loads(pickle.dumps(sent)) == sent
    assert sent.attack_by is not None
    assert sent.attack_by.strength == 1.0


def test_keys_come_from_the_recipe_or_from_the_command_line() -> None:
    assert [key["person"] for key in keys_of(Smartwatch(), {})] == ["1", "2", "4", "5", "6", "8", "9"]
    assert keys_of(Tiny(), {"seed": "8..10"}) == [{"seed": "8"}, {"seed": "9"}, {"seed": "10"}]
    assert keys_of(Tiny(), {"seed": "7,3"}) == [{"seed": "7"}, {"seed": "3"}]


@pytest.mark.parametrize("value", ["10..8", "a..b", "1..", "", "1,,2", "0..100000"])
def test_a_value_that_is_no_range_is_told(value: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        keys_of(Tiny(), {"seed": value})
    assert caught.value.code == "invalid_simulation"


def test_an_option_the_recipe_does_not_have_is_told() -> None:
    with pytest.raises(InvalidInput, match="no device option 'sed'; options: seed"):
        keys_of(Tiny(), {"sed": "1..3"})
