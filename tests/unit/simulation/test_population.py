"""Devices of a virtual fleet are made when asked for, always alike, from the recipe's own data."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from tiny_recipe import Tiny, signals

from fogline_recipes.smartwatch import Smartwatch
from fogline_server.simulation.population import Population
from fogline_server.simulation.spec import SimulationSpec, keys_of
from fogline_server.training.spec import RunSpec
from fogline_shared.errors import Conflict, InvalidInput

KEYS = tuple({"seed": str(seed)} for seed in range(4))


def population(**fields: object) -> Population:
    recipe = Tiny()
    run = RunSpec(recipe="tiny", **fields.pop("run", {})).resolved(recipe)
    return Population(recipe, SimulationSpec(**{"run": run, "keys": KEYS, "devices": 100, **fields}))


def test_by_key_a_device_has_the_data_of_the_field() -> None:
    fleet = population()
    assert all((fleet.held(device).data.x == signals(device, 64).x).all() for device in range(4))
    assert (fleet.held(6).data.x == signals(2, 64).x).all()
    assert len({fleet.held(device).fingerprint for device in range(100)}) == 100, "copies do not all do the same"


@pytest.mark.parametrize("split", ["key", "dirichlet:0.3", "shards:2"])
def test_samples_bound_what_a_device_holds_and_the_count_is_known_beforehand(split: str) -> None:
    fleet = population(split=split, samples=20)
    held = [fleet.held(device) for device in range(30)]
    assert {len(each.data) for each in held} == {20}
    assert fleet.examples(5) == 20
    assert len({each.data.x.tobytes() for each in held}) == 30
    again = population(split=split, samples=20)
    assert (again.held(17).data.x == held[17].data.x).all()
    other = population(split=split, samples=20, run={"seed": 1})
    assert any((other.held(device).data.x != held[device].data.x).any() for device in range(30))


def test_examples_stay_with_their_labels() -> None:
    pool = {
        row.tobytes(): label
        for key in range(4)
        for row, label in zip(signals(key, 64).x, signals(key, 64).y, strict=True)
    }
    data = population(split="dirichlet:0.3").held(3).data
    assert len(data) == 64
    assert all(pool[row.tobytes()] == label for row, label in zip(data.x, data.y, strict=True))


def test_a_watch_s_recordings_are_cut_and_joined_with_its_windows() -> None:
    recipe = Smartwatch()
    run = RunSpec(recipe="smartwatch").resolved(recipe)
    spec = SimulationSpec(run=run, keys=keys_of(recipe, {}), devices=1000, split="dirichlet:0.5", samples=40)
    data = Population(recipe, spec).held(321).data
    source = data.source
    windows = source.series[source.start[:, None] + np.arange(recipe.input_shape[1])].transpose(0, 2, 1)
    assert (windows == data.x).all()
    assert ((source.first <= source.start) & (source.start + recipe.input_shape[1] - 1 <= source.last)).all()
    x, y = recipe.sample(data, torch.arange(len(data)), torch.Generator().manual_seed(0))
    assert x.shape == data.x.shape
    assert (y.numpy() == data.y).all()


def test_a_cohort_is_drawn_anew_each_round_and_alike_for_a_seed() -> None:
    fleet = population(cohort=10)
    cohorts = [fleet.cohort(number, 0.0)[0] for number in range(1, 30)]
    assert all(len(set(cohort)) == 10 for cohort in cohorts)
    assert len({device for cohort in cohorts for device in cohort}) > 80
    assert population(cohort=10).cohort(7, 0.0)[0] == cohorts[6]


def test_a_round_waits_in_virtual_time_until_devices_are_there(tmp_path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("trace,start_s,end_s\na,3600,7200\n")
    fleet = population(availability=f"trace:{path}")
    assert fleet.cohort(1, 0.0)[1] == 3600.0
    assert fleet.cohort(1, 4000.0)[1] == 4000.0
    assert fleet.answers_after(1, 1, "train", epochs=1, at_s=7199.99) is None, "it has gone before it could answer"


def test_devices_that_are_never_there_at_once_end_the_wait(tmp_path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("trace,start_s,end_s\na,0,10000\nb,10000,20000\n")
    fleet = population(availability=f"trace:{path}", devices=2, run={"min_devices": 2})
    with pytest.raises(Conflict) as caught:
        fleet.cohort(1, 0.0)
    assert caught.value.code == "no_devices_available"


def test_dropouts_come_as_often_as_they_should() -> None:
    fleet = population(dropout=0.3, devices=1000)
    answers = [fleet.answers_after(device, 1, "train", epochs=2, at_s=0.0) for device in range(1000)]
    assert 240 < answers.count(None) < 360
    median = np.median([seconds for seconds in answers if seconds is not None])
    assert median == pytest.approx(2 * 64 / 200, rel=0.1)


def test_memory_does_not_grow_with_the_fleet() -> None:
    def peak(devices: int) -> int:
        fleet = population(devices=devices, split="shards:2", samples=16, attack="nan", attackers=0.1, cohort=20)
        fleet.held(0)
        tracemalloc.start()
        try:
            for number in range(3):
                for device in fleet.cohort(number, 0.0)[0]:
                    fleet.attack(device)
                    fleet.held(device)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(10_000_000) < peak(1000) + 200_000


def test_a_source_that_cannot_be_cut_is_told() -> None:
    class Sourced(Tiny):
        def device_data(self, options):
            data = super().device_data(options)
            return type(data)(x=data.x, y=data.y, source=object())

    recipe = Sourced()
    run = RunSpec(recipe="tiny").resolved(recipe)
    whole = SimulationSpec(run=run, keys=KEYS, devices=9)
    assert len(Population(recipe, whole).held(3).data) == 64
    with pytest.raises(InvalidInput, match=r"without take\(\) and joined\(\)") as caught:
        Population(recipe, SimulationSpec(run=run, keys=KEYS, devices=9, split="shards:2")).held(3)
    assert caught.value.code == "invalid_simulation"
