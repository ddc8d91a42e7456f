"""Killed at any commit of an asynchronous run, its steps take the same updates and end with the same bytes.

The first device answers two steps late, so a step takes what three rounds have asked for.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from commit_points import GATEWAY, Nursery, Place
from run_lives import World

from fogline_server.db.database import Database

DEVICES, STEPS, LAG = 3, 4, 2
SPEC = {
    "rounds": STEPS,
    "min_devices": 1,
    "strategy": "fedbuff",
    "strategy_options": {"buffer_size": 2},
    "codec": "topk",
    "seed": 3,
    "evaluate_every": STEPS,
}
OPEN = "fogline_server.training.trainer.Trainer._cohort"
TAKE = "fogline_server.training.asynchronous.grid.AsynchronousGatewayGrid._take"

pytestmark = pytest.mark.slow


@pytest.fixture
def world(nursery: Nursery, database: Database, database_url: str, redis_url: str, tmp_path: Path) -> World:
    return World(nursery, Place(database_url, redis_url, str(tmp_path), DEVICES, LAG), database, SPEC)


def test_killed_at_each_commit_of_a_step(world: World) -> None:
    sites, expected = world.undisturbed()
    assert expected["run"][:2] == ("SUCCEEDED", STEPS)
    taken = [(number, device, step) for number, kind, device, _, step, _ in expected["updates"] if kind == "train"]
    assert sorted(taken[:-2]) == [
        (1, "dev_0", 3),
        (1, "dev_1", 1),
        (1, "dev_2", 1),
        (2, "dev_1", 2),
        (2, "dev_2", 2),
        (3, "dev_1", 3),
        (3, "dev_2", 4),
    ]
    assert taken[-2:] == [(4, "dev_0", None), (4, "dev_1", 4)], "one is still at work when the run ends"
    assert sites.count(TAKE) == STEPS
    assert GATEWAY in sites
    # The third step, which takes an update of the first round and leaves one to the fourth, and the end of the run.
    opens = [number for number, site in enumerate(sites) if site == OPEN]
    world.check_killed_at_each([*range(opens[3], opens[4]), len(sites) - 1], sites, expected, apart=3)
