"""Pacing and the gate in virtual time: by the code of live runs."""

from __future__ import annotations

from typing import Any

from tiny_recipe import Tiny

from fogline_server.simulation.clock import close
from fogline_server.simulation.engine import simulate
from fogline_server.simulation.pacer import Pacer
from fogline_server.simulation.population import Population
from fogline_server.simulation.spec import SimulationSpec
from fogline_server.training.gate import Gate
from fogline_server.training.pacing import Pacing
from fogline_server.training.spec import RunSpec

KEYS = tuple({"seed": str(seed)} for seed in range(4))


def facts_of(*, rounds: int, pacing: Pacing, gate: Gate | None = None, **fleet: Any) -> dict[str, Any]:
    recipe = Tiny()
    run = {"rounds": rounds, "round_deadline_s": 60.0, "max_norm_ratio": 1e6, "plan": {"epochs": 1}}
    spec = RunSpec(recipe="tiny", pacing=pacing, gate=gate or Gate(), **run, **fleet.pop("run", {})).resolved(recipe)
    fleet = {"devices": 200, "cohort": 10, "samples": 8, "split": "dirichlet:1", **fleet}
    return simulate(recipe, SimulationSpec(run=spec, keys=KEYS, **fleet), processes=1, on_progress=lambda *_: None)


def test_with_half_of_the_devices_lost_rounds_commit_once_they_are_tuned() -> None:
    pacing = Pacing(target=5, over_selection=1.0, self_tuning=True, retries=3)
    facts = facts_of(rounds=8, pacing=pacing, dropout=0.5)
    assert facts["committed"] == 8
    trained = facts["rounds"][1:]
    assert {told["answered"] for told in trained} <= {4, 5}, "a round closes with its target"
    assert trained[-1]["asked"] > 5
    assert trained[-1]["deadline_s"] < 60.0
    untuned = facts_of(rounds=4, pacing=Pacing(target=5, over_selection=0.3), dropout=0.5, run={"quorum": 0.6})
    assert untuned["committed"] < 4


def test_a_failed_attempt_is_followed_by_another_cohort_and_its_work_is_waste() -> None:
    facts = facts_of(rounds=6, pacing=Pacing(target=10, retries=20), dropout=0.3)
    assert facts["committed"] == 6
    failed = [each for told in facts["rounds"][1:] for each in told["attempts"]]
    assert len(failed) == facts["retried"] > 0
    assert {each["code"] for each in failed} == {"quorum_not_reached"}
    assert facts["wasted_share"] > 0


def test_devices_that_were_just_asked_rest_in_virtual_time() -> None:
    run = RunSpec(recipe="tiny", pacing=Pacing(target=10, steering=True)).resolved(Tiny())
    fleet = Population(Tiny(), SimulationSpec(run=run, keys=KEYS, devices=60))
    pacer = Pacer(run, 60)
    first, _ = fleet.cohort(1, 0.0, asked=10, resting=pacer.resting(10))
    closing = close(dict.fromkeys(first, 1.0), quorum=1.0, deadline_s=10.0)
    pacer.note(pacer.attempt(1, 1, 0.0), 0.0, closing, ())
    assert pacer.resting(10) == set(first)
    for number in range(2, 30):
        assert not set(fleet.cohort(number, 0.0, asked=10, resting=pacer.resting(10))[0]) & set(first)
    assert len(fleet.cohort(2, 0.0, asked=60, resting=pacer.resting(10))[0]) == 60, "without others they are asked"


def test_refused_rounds_keep_the_model_and_end_the_run_when_there_are_too_many() -> None:
    gate = Gate(max_drop=0, patience=2)
    attacked = {"attack": "gaussian:1000", "attackers": 1.0}
    facts = facts_of(rounds=4, pacing=Pacing(), gate=gate, **attacked)
    open_gate = facts_of(rounds=4, pacing=Pacing(), **attacked)
    assert facts["refused"] >= 2
    assert facts["holdout"]["accuracy"] >= open_gate["holdout"]["accuracy"]
    refused = [told for told in facts["rounds"][1:] if told["state"] == "REFUSED"]
    assert all(told["code"] in {"holdout_drop", "model_not_finite"} for told in refused)
    assert facts["error"]["code"] == "rounds_refused"
    assert [told["state"] for told in facts["rounds"][-2:]] == ["REFUSED", "REFUSED"]
