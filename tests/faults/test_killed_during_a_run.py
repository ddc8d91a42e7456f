"""SIGKILL in the middle of a federated run, to each process in turn: the run is whole, and inference never stopped.

Each run is of the same devices and seed, so it must end with the very bytes of the run in which nothing was killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from live_fleet import LiveFleet, training_child
from parts import eventually

# In one process: the fleet and its undisturbed run take longer than a kill.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("killed_during_a_run")]

# The steps of an update before the agent changes what it serves; "" is none.
BEFORE_THE_SWAP = ("", "DOWNLOADING", "VERIFYING", "STAGED")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    fleet = LiveFleet(tmp_path_factory.mktemp("live"))
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


@pytest.fixture(scope="module")
def expected(fleet: LiveFleet) -> str:
    """The digest of the parameters that an undisturbed run ends with."""
    with fleet.watch():
        run = fleet.begin_run()
        fleet.finish_run(run)
    return fleet.check_run(run)


def test_coordinator_killed_during_a_run(fleet: LiveFleet, expected: str) -> None:
    kill_and_finish(fleet, expected, "coordinator")


def test_redis_killed_during_a_run(fleet: LiveFleet, expected: str) -> None:
    kill_and_finish(fleet, expected, "redis")


def test_worker_killed_during_a_run(fleet: LiveFleet, expected: str) -> None:
    kill_and_finish(fleet, expected, "worker")


def test_trainer_killed_during_a_run(fleet: LiveFleet, expected: str) -> None:
    with fleet.watch():
        run = fleet.begin_run()
        fleet.in_the_middle_of(run)
        fleet.trainer(run).kill()
        fleet.finish_run(run)
    assert fleet.check_run(run) == expected
    assert fleet.attempts(run) >= 2


def test_supervisor_killed_during_a_run(fleet: LiveFleet, expected: str) -> None:
    with fleet.watch():
        run = fleet.begin_run()
        fleet.in_the_middle_of(run)
        fleet.up.kill_supervisor()
        assert fleet.run_of(run).finished_at is None
        fleet.start_up()
        fleet.finish_run(run)
    assert fleet.check_run(run) == expected
    assert fleet.attempts(run) >= 2


def test_agent_killed_in_its_training_during_a_run(fleet: LiveFleet, expected: str) -> None:
    agent = fleet.agents[0]
    with fleet.watch() as watch:
        run = fleet.begin_run()
        fleet.in_the_middle_of(run)
        eventually(lambda: training_child(agent), 60)
        with watch.outage(agent):
            agent.kill()
            agent.start()
        fleet.finish_run(run)
    assert fleet.check_run(run) == expected


def test_agent_killed_mid_download_during_a_run(fleet: LiveFleet, expected: str) -> None:
    agent, before = fleet.agents[0], fleet.newest
    release = fleet.publish("big", padding=3 << 20)

    def arriving() -> bool:
        """Of the artifact itself, or of a delta, as the coordinator has built one by now or has not."""
        with suppress(FileNotFoundError):  # it is complete in this moment
            return any(part.stat().st_size for part in (agent.state_dir / "incoming").glob("*.part"))
        return False

    with fleet.watch() as watch:
        run = fleet.begin_run()
        fleet.in_the_middle_of(run, after=1)
        fleet.proxy.rate = 1 << 20
        rollout = fleet.begin_roll_out(release)
        eventually(arriving, 60)
        assert fleet.run_of(run).finished_at is None
        with watch.outage(agent):
            agent.kill()
            fleet.proxy.rate = None
            agent.start()
        fleet.finish_run(run)
        fleet.finish_roll_out(rollout)
    assert fleet.check_run(run) == expected
    assert [watch.served(agent) for agent in fleet.agents] == [[before, fleet.newest]] * 2


def test_agent_killed_mid_swap_during_a_run(fleet: LiveFleet, expected: str) -> None:
    agent, before = fleet.agents[0], fleet.newest
    release = fleet.publish("small")
    with fleet.watch() as watch:
        run = fleet.begin_run()
        fleet.in_the_middle_of(run, after=1)
        rollout = fleet.begin_roll_out(release)
        eventually(lambda: agent.journal_step() not in BEFORE_THE_SWAP, 60, every_s=0.001)
        assert agent.journal_step(), "the swap is over"
        assert fleet.run_of(run).finished_at is None
        with watch.outage(agent):
            agent.kill()
            agent.start()
        fleet.finish_run(run)
        fleet.finish_roll_out(rollout)
    assert fleet.check_run(run) == expected
    assert [watch.served(agent) for agent in fleet.agents] == [[before, fleet.newest]] * 2


def kill_and_finish(fleet: LiveFleet, expected: str, name: str) -> None:
    with fleet.watch():
        run, before = fleet.begin_run(), fleet.pids()[name]
        fleet.in_the_middle_of(run)
        fleet.kill(name)
        fleet.finish_run(run)
    assert fleet.check_run(run) == expected
    eventually(lambda: fleet.pids().get(name, before) != before, 60)
