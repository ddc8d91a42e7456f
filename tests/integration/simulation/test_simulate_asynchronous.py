"""FedBuff in virtual time: slow devices hold nobody up, and what they learned still counts."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from tiny_recipe import Tiny

from fogline_server.simulation.engine import simulate
from fogline_server.simulation.spec import SimulationSpec, keys_of
from fogline_server.training.ensemble.spec import Ensemble
from fogline_server.training.pacing import Pacing
from fogline_server.training.privacy.spec import Privacy
from fogline_server.training.spec import RunSpec
from fogline_shared.errors import InvalidInput

# A few devices are many times slower than the median.
STRAGGLERS: dict[str, Any] = {"devices": 10, "cohort": 10, "spread": 1.5}


def facts_of(
    strategy: str = "fedbuff", *, rounds: int = 4, options: dict | None = None, deadline_s: float = 300.0, **fleet: Any
) -> dict:
    logging.getLogger("flwr").setLevel(logging.WARNING)
    recipe = Tiny()
    run = RunSpec(
        recipe=recipe.name,
        rounds=rounds,
        strategy=strategy,
        strategy_options=options or {},
        quorum=0.3,
        round_deadline_s=deadline_s,
    )
    spec = SimulationSpec(run=run.resolved(recipe), keys=keys_of(recipe, {}), **{**STRAGGLERS, **fleet})
    return simulate(recipe, spec, processes=1, on_progress=lambda *_: None)


def hours(facts: dict) -> float:
    """Of training: gathering statistics goes the same way for all strategies."""
    return sum(told["seconds"] for told in facts["rounds"][1:]) / 3600


def test_with_stragglers_it_takes_more_steps_an_hour_than_synchronous_rounds() -> None:
    together, buffered = facts_of("fedavg"), facts_of(options={"buffer_size": 3})
    assert together["committed"] == buffered["committed"] == 4
    assert buffered["committed"] / hours(buffered) > 2 * together["committed"] / hours(together)
    assert buffered["unseen"]["accuracy"] > 0.4, "chance is a quarter"


def test_the_same_seed_gives_the_same_bytes() -> None:
    one, again = (facts_of(options={"buffer_size": 3}) for _ in range(2))
    assert one == again


def test_a_device_is_at_work_once_and_each_answer_counts_once() -> None:
    facts = facts_of(options={"buffer_size": 3})
    told = facts["rounds"][1:]
    assert told[0]["asked"] == 10, "all places are free"
    assert [r["asked"] for r in told[1:]] == [3] * 3, "as many as the step before has freed"
    assert all(r["answered"] == r["accepted"] == 3 for r in told)


def test_what_is_too_stale_is_late_and_not_counted() -> None:
    facts = facts_of(rounds=8, options={"buffer_size": 3, "max_staleness": 1})
    told = facts["rounds"][1:]
    assert sum(r["late"] for r in told) > 0
    assert all(r["answered"] == 3 for r in told)
    assert facts["wasted_share"] > 0
    patient = facts_of(rounds=8, options={"buffer_size": 3, "max_staleness": 100})
    assert sum(r["late"] for r in patient["rounds"][1:]) == 0


def test_attackers_are_refused_across_versions() -> None:
    facts = facts_of(attack="sign_flip:100", attackers=0.1, options={"buffer_size": 6})
    left_out = [r["left_out"] for r in facts["rounds"][1:]]
    assert any("implausible_norm" in codes for codes in left_out)
    assert sum(r["attackers"]["accepted"] for r in facts["rounds"][1:]) == 0


def test_devices_that_never_answer_give_up_their_places() -> None:
    facts = facts_of(dropout=0.4, options={"buffer_size": 3}, rounds=8)
    assert sum(r["lost"] for r in facts["rounds"][1:]) > 0
    assert facts["committed"] == 8


def test_at_the_deadline_a_step_takes_the_quorum_and_leaves_the_slow_at_work() -> None:
    told = facts_of(options={"buffer_size": 9}, deadline_s=2.0, rounds=6)["rounds"][1:]
    assert (told[0]["seconds"], told[0]["asked"], told[0]["answered"]) == (2.0, 10, 8)
    assert (told[1]["asked"], told[1]["answered"]) == (8, 9), "one that was asked before has answered"
    assert sum(step["lost"] + step["late"] for step in told) == 0


def test_an_ensemble_needs_rounds() -> None:
    with pytest.raises(InvalidInput, match="an ensemble needs"):
        RunSpec(recipe="tiny", strategy="fedbuff", ensemble=Ensemble(sizes={"phone": "teacher"}))


@pytest.mark.parametrize(
    ("spec", "code", "says"),
    [
        ({"pacing": Pacing(retries=1)}, "invalid_run", "no rounds, which pacing is about"),
        ({"pacing": Pacing(target=5)}, "invalid_run", "go by buffer_size and max_devices"),
        ({"privacy": Privacy(population="all")}, "strategy_not_private", "without bound; private: fedadagrad"),
    ],
)
def test_what_makes_no_sense_without_rounds_is_refused(spec: dict[str, Any], code: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says) as caught:
        RunSpec(recipe="tiny", strategy="fedbuff", **spec)
    assert caught.value.code == code


def test_a_step_needs_no_more_updates_than_its_buffer_holds() -> None:
    options = {"buffer_size": 2}
    assert RunSpec(recipe="tiny", strategy="fedbuff", strategy_options=options, min_devices=10).fewest_updates == 2
    assert RunSpec(recipe="tiny", strategy="fedbuff", min_devices=5, quorum=0.5).fewest_updates == 3


@pytest.mark.parametrize(("option", "value"), [("buffer_size", 0), ("max_staleness", -1), ("server_learning_rate", 0)])
def test_options_out_of_range_are_named(option: str, value: float) -> None:
    with pytest.raises(InvalidInput, match=option):
        RunSpec(recipe="tiny", strategy="fedbuff", strategy_options={option: value})
