"""Killed at any commit of a round that goes another way than most, a run ends with the very bytes of an unkilled one.

A cohort that fails and makes way for another, a model that the gate refuses, an ensemble of two sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from commit_points import GATEWAY, Nursery, Place
from run_lives import World

from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.training.ensemble.spec import Ensemble
from fogline_server.training.gate import Gate
from fogline_server.training.pacing import Pacing

OPEN = "fogline_server.training.trainer.Trainer._cohort"
COMMIT = "fogline_server.training.trainer.Trainer._commit"
# A strategy and a codec with a state each, which later rounds need.
SPEC = {"min_devices": 2, "strategy": "fedadam", "codec": "topk"}

# It is a matter of the trainer's steps, not of the databases.
pytestmark = [pytest.mark.slow, pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)]


@pytest.fixture
def place(nursery: Nursery, database_url: str, redis_url: str, tmp_path: Path) -> Place:
    return Place(database_url, redis_url, str(tmp_path), devices=2)


def rounds_between(sites: Sequence[str], first: int, last: int) -> range:
    """The numbers of all commits from the opening of a cohort's work to the end of another's (both from 0)."""
    opened, ended = ([number for number, site in enumerate(sites) if site == each] for each in (OPEN, COMMIT))
    return range(opened[first], ended[last] + 1)


def test_killed_where_a_cohort_fails_and_another_is_asked(nursery: Nursery, place: Place, database: Database) -> None:
    # With this seed the liar is drawn at first, and nobody twice.
    spec = SPEC | {"seed": 16, "rounds": 1, "quorum": 1.0, "pacing": Pacing(target=2, retries=1)}
    world = World(nursery, replace(place, devices=4, liar=0), database, spec)
    sites, expected = world.undisturbed()
    assert expected["run"][:2] == ("SUCCEEDED", 1)
    assert expected["attempts"] == [(1, ["dev_0", "dev_3"], 2, "quorum_not_reached")]
    assert [(row[0], row[2]) for row in expected["rounds"][1:]] == [(1, ["dev_1", "dev_2"])]
    numbers = rounds_between(sites, 1, 2)
    assert [sites[number] for number in numbers].count(GATEWAY) == 4, "two replies to each attempt"
    # A job has ten lives at most, and each commit takes two.
    world.check_killed_at_each(numbers, sites, expected, apart=6)


def test_killed_where_the_gate_refuses_a_round(nursery: Nursery, place: Place, database: Database) -> None:
    spec = SPEC | {"seed": 3, "rounds": 3, "strategy_options": {"eta": 0.1}, "gate": Gate(max_drop=0)}
    world = World(nursery, place, database, spec)
    sites, expected = world.undisturbed()
    rounds = expected["rounds"]
    assert [row[1] for row in rounds] == ["COMMITTED", "COMMITTED", "REFUSED", "COMMITTED"]
    assert rounds[3][3] == rounds[2][3] == rounds[1][4], "the old parameters stay"
    assert rounds[2][6]["code"] == "holdout_drop"
    world.check_killed_at_each(rounds_between(sites, 2, 2), sites, expected, apart=3)


def test_killed_where_an_ensemble_teaches(nursery: Nursery, place: Place, database: Database) -> None:
    ensemble = Ensemble(sizes={"strong": "teacher"}, steps=2)
    world = World(nursery, place, database, SPEC | {"seed": 3, "rounds": 2, "ensemble": ensemble})
    with database.transaction() as session:
        session.get_one(Device, "dev_0").device_class = "strong"
    sites, expected = world.undisturbed()
    assert expected["run"][:2] == ("SUCCEEDED", 2)
    assert [row[5]["ensemble_members"] for row in expected["rounds"][1:]] == [2, 2]
    # The first of two rounds: the second goes on from the state that it leaves.
    numbers = rounds_between(sites, 1, 1)
    assert len(numbers) > len(rounds_between(sites, 0, 0)), "each step of the lesson tells of its progress"
    world.check_killed_at_each(numbers, sites, expected, apart=4)
