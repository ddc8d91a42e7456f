"""A federated run over real agents: one is killed in its training, one connection is cut; the run is the same."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import psutil
import pytest
import training_fleet
from agent_process import until
from sqlalchemy import select

from fogline_server.training.service import get_run, rounds_of
from fogline_server.training.tables import Update
from fogline_shared.states import RoundState, RunState, UpdateVerdict

SUPPORT = str(Path(training_fleet.__file__).parent)


def training_children(pid: int) -> list[psutil.Process]:
    return [child for child in psutil.Process(pid).children() if "training.child" in " ".join(child.cmdline())]


@pytest.mark.slow
async def test_run_survives_an_agent_killed_in_its_training(
    enrolled, proxy, sqlite_database, blobs, doorbell, monkeypatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")]))
    agents = [await enrolled(f"watch-{i}", "--recipe", "tiny", "--option", f"seed={i}") for i in (1, 2)]
    agents[1].route_through(proxy.port)
    for agent in agents:
        agent.start()
    await until(lambda: all(agent.status().get("online") for agent in agents))
    run_id, job_id = training_fleet.create_run(
        sqlite_database, size="student", rounds=3, min_devices=2, quorum=1.0, round_deadline_s=60
    )
    engine = training_fleet.engine(sqlite_database, blobs, doorbell)
    training = asyncio.create_task(asyncio.to_thread(engine.execute, job_id))
    await until(lambda: agents[0].status().get("task") and training_children(agents[0].process.pid), within_s=60)
    children = training_children(agents[0].process.pid)
    agents[0].kill()
    await until(lambda: not any(child.is_running() for child in children), within_s=30)
    agents[0].start()
    await proxy.cut()
    await proxy.heal()
    async with asyncio.timeout(150):
        await training

    with sqlite_database.read() as session:
        assert get_run(session, run_id).state == RunState.SUCCEEDED
        rounds = rounds_of(session, run_id)
        assert {each.state for each in rounds} == {RoundState.COMMITTED}
        assert [each.number for each in rounds][-1] == 3
        updates = session.scalars(select(Update)).all()
    counted = [update.task_id for update in updates if update.verdict == UpdateVerdict.ACCEPTED]
    trained = [task for task in counted if "-train-" in task]
    assert len(trained) == len(set(trained)) == 6, "two devices, three rounds, each once"
    assert all(not list((agent.state_dir / "outbox").iterdir()) for agent in agents)
