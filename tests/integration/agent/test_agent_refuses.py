"""Real agents look for themselves whether they meet a run's conditions: the coordinator may be behind."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
import training_fleet
from agent_process import AgentProcess, until

from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.training.service import get_run, updates_of
from fogline_server.training.why_not import WhyNot, why_not
from fogline_shared.eligibility import Eligibility

SUPPORT = str(Path(training_fleet.__file__).parent)


@pytest.fixture(autouse=True)
def tiny_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")]))


def ask(db: Database, agent: AgentProcess, run_id: str) -> WhyNot:
    with db.read() as session:
        return why_not(session, agent.device_id, run_id, now=utc_now())


async def online(*agents: AgentProcess) -> None:
    for agent in agents:
        agent.start()
    await until(lambda: all(agent.status().get("online") for agent in agents))


async def test_device_whose_battery_has_fallen_refuses_and_the_run_goes_on(
    enrolled, sqlite_database, blobs, doorbell
) -> None:
    low = ("--attribute", "battery_percent=12")
    agents = [
        await enrolled(f"watch-{i}", "--recipe", "tiny", "--option", f"seed={i}", *(low if i == 3 else ()))
        for i in (1, 2, 3)
    ]
    await online(*agents)
    tired = agents[2]
    with sqlite_database.transaction() as session:
        device = session.get_one(Device, tired.device_id)
        assert device.attributes["battery_percent"] == 12, "it has told"
        device.attributes = {**device.attributes, "battery_percent": 90}
    run_id, job_id = training_fleet.create_run(
        sqlite_database, rounds=2, min_devices=2, quorum=1.0, eligibility=Eligibility(min_battery_percent=50)
    )
    assert ask(sqlite_database, tired, run_id).eligible, "as far as the coordinator knows"
    async with asyncio.timeout(150):
        await asyncio.to_thread(training_fleet.engine(sqlite_database, blobs, doorbell).execute, job_id)

    with sqlite_database.read() as session:
        run, updates = get_run(session, run_id), updates_of(session, run_id)
        node = session.get_one(Device, tired.device_id).node_id
    assert (run.state, run.rounds_done) == ("SUCCEEDED", 2)
    assert str(node) not in run.statistics["samples"]
    refusals = [update for update in updates if update.device_id == tired.device_id]
    assert refusals, "it was asked"
    assert {(update.verdict, update.code) for update in refusals} == {("ERROR", "not_eligible")}
    assert "battery at 12 %, asked are 50 %" in refusals[0].reason
    others = [update for update in updates if update.device_id != tired.device_id]
    assert {update.verdict for update in others} == {"ACCEPTED"}
    assert len(others) == 2 * 3
    assert any(note.startswith("it refused its task of round") for note in ask(sqlite_database, tired, run_id).notes)


async def test_device_with_too_few_samples_finds_out_with_its_first_task_and_tells(
    enrolled, sqlite_database, blobs, doorbell
) -> None:
    agent = await enrolled("watch-1", "--recipe", "tiny", "--option", "seed=1")
    await online(agent)
    run_id, job_id = training_fleet.create_run(
        sqlite_database, rounds=1, min_devices=1, eligibility=Eligibility(min_samples=65)
    )
    async with asyncio.timeout(150):
        await asyncio.to_thread(training_fleet.engine(sqlite_database, blobs, doorbell).execute, job_id)
    with sqlite_database.read() as session:
        assert get_run(session, run_id).error["code"] == "no_update_accepted"
        (update,) = updates_of(session, run_id)
    assert (update.round, update.code) == (0, "not_eligible")
    assert "has 64 samples, asked are 65" in update.reason

    def told() -> object:
        with sqlite_database.read() as session:
            return session.get_one(Device, agent.device_id).attributes.get("samples")

    await until(lambda: told() == 64)


async def test_owner_decides_and_the_coordinator_says_so(enrolled, sqlite_database) -> None:
    agent = await enrolled("watch-1", "--recipe", "tiny", "--no-consent", "--metered")
    await online(agent)
    run_id, _ = training_fleet.create_run(sqlite_database, eligibility=Eligibility(unmetered=True))
    assert [reason.code for reason in ask(sqlite_database, agent, run_id).reasons] == [
        "network_metered",
        "consent_refused",
    ]
    await asyncio.to_thread(agent.stop)
    agent.start("--consent", "--unmetered")
    await until(lambda: ask(sqlite_database, agent, run_id).eligible)
