"""Privacy in virtual time: by the code of live runs, with what it costs in the report."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_recipe import Tiny

from fogline_server.simulation import report
from fogline_server.simulation.engine import simulate
from fogline_server.simulation.spec import SimulationSpec
from fogline_server.training.gate import Gate
from fogline_server.training.privacy.local import LocalPrivacy
from fogline_server.training.privacy.spec import Privacy
from fogline_server.training.spec import RunSpec
from fogline_shared.privacy.accountant import Releases, epsilon

KEYS = tuple({"seed": str(seed)} for seed in range(4))
CENTRAL = Privacy(population="simulated", noise_multiplier=2.0, clip=0.01, clip_quantile=0.5)


def facts_of(*, rounds: int = 3, fleet: dict[str, Any] | None = None, **run: Any) -> dict[str, Any]:
    recipe = Tiny()
    spec = RunSpec(recipe="tiny", rounds=rounds, plan={"epochs": 1}, **run).resolved(recipe)
    virtual = {"devices": 40, "cohort": 12, "samples": 16, "delta": 1e-6, **(fleet or {})}
    return simulate(recipe, SimulationSpec(run=spec, keys=KEYS, **virtual), processes=1, on_progress=lambda *_: None)


def test_the_report_tells_what_was_spent_and_where_the_clip_went() -> None:
    facts = facts_of(privacy=CENTRAL)
    told = [each["privacy"] for each in facts["rounds"][1:]]
    expected = [epsilon([Releases(noise_multiplier=2.0, rounds=n)], 1e-6) for n in (1, 2, 3)]
    assert [each["epsilon"] for each in told] == expected
    clips = [each["clip"] for each in told]
    assert clips[0] == 0.01 < clips[1] < clips[2], "hardly an update is that short"
    assert [each["loss"] for each in facts["rounds"][1:]] == [None] * 3
    assert facts["rounds"][0]["asked"] == 0, "nobody is asked for statistics"
    page, summary = report.html(facts), report.summary(facts)
    assert f"{expected[-1]:.3f}" in page
    assert summary["ε spent"] == f"{expected[-1]:.3f} at δ 1e-06"
    assert summary["clip"] == f"0.01 at first, {clips[2]:.3g} at last"


def test_the_same_seed_gives_the_same_noise_and_another_another() -> None:
    ends = [
        facts_of(rounds=1, seed=seed, **how)["params_digest"]
        for how in ({"privacy": CENTRAL}, local())
        for seed in (1, 1, 2)
    ]
    assert ends[0] == ends[1] != ends[2]
    assert ends[3] == ends[4] != ends[5]


def test_refused_rounds_are_spent_abandoned_ones_are_not() -> None:
    noisy = Privacy(population="simulated", noise_multiplier=2.0, clip=100.0, clip_quantile=0.5)
    facts = facts_of(privacy=noisy, rounds=6, gate=Gate(max_drop=0.0, patience=9), seed=2)
    states = [each["state"] for each in facts["rounds"][1:]]
    assert "REFUSED" in states
    assert facts["epsilon"] == epsilon([Releases(noise_multiplier=2.0, rounds=6)], 1e-6)
    clips = [each["privacy"]["clip"] for each in facts["rounds"][1:]]
    for state, before, after in zip(states, clips, clips[1:], strict=False):
        assert (before == after) == (state == "REFUSED")
    lost = facts_of(privacy=CENTRAL, rounds=2, fleet={"dropout": 1.0})
    assert (lost["abandoned"], lost["epsilon"]) == (2, None)


def local(**more: Any) -> dict[str, Any]:
    return {"local_privacy": LocalPrivacy(epsilon=8.0, **more)}


@pytest.mark.parametrize("strategy", ["fedavg", "geometric_median", "fedbuff"])
def test_honest_devices_with_noise_of_their_own_are_admitted_and_attackers_are_not(strategy: str) -> None:
    attacked = {"attack": "gaussian:10", "attackers": 0.25}
    facts = facts_of(**local(), strategy=strategy, fleet=attacked, quorum=0.5)
    rounds = facts["rounds"][1:]
    honest = sum(each["accepted"] for each in rounds)
    refused = sum(sum(each["left_out"].values()) for each in rounds)
    assert honest > 0
    assert refused == sum(each["attackers"]["answered"] for each in rounds) > 0
    assert facts["epsilon"] == LocalPrivacy(epsilon=8.0).spent(3)
    assert "of a device in every round at δ 1e-05" in report.summary(facts)["ε spent"]


def test_noise_of_each_device_s_own_harms_more_than_the_coordinator_s_of_the_same_cost() -> None:
    own = LocalPrivacy(epsilon=8.0, clip=1.0)
    central = Privacy(population="simulated", noise_multiplier=own.mechanism.noise_multiplier, clip=1.0)
    once, each = (facts_of(rounds=2, **how)["unseen"]["loss"] for how in ({"privacy": central}, {"local_privacy": own}))
    assert once < each
