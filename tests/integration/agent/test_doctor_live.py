"""The doctor beside a real agent and a real coordinator: running, refused, killed, gone."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime

from agent_process import AgentProcess, agent_cli, until
from artifacts import artifact

from fogline_client import config as settings
from fogline_server.devices import service as devices
from fogline_shared.states import AssignmentState


async def examined(agent: AgentProcess) -> tuple[int, set[str]]:
    """The command's exit status, and the codes of what it found."""
    done = await asyncio.to_thread(agent_cli, "doctor", "--json", "--state-dir", agent.state_dir)
    return done.returncode, {finding["code"] for finding in json.loads(done.stdout)["findings"]}


async def test_a_device_lives_loses_its_agent_its_right_and_its_coordinator(
    enrolled, cloud, gateway, sqlite_database, token
) -> None:
    agent = await enrolled("watch-1", "--attribute", "floor=2", "--device-class", "watch")
    agent.start()
    assignment = cloud.roll_out(agent.device_id, cloud.publish(artifact()))
    await cloud.ends(assignment, AssignmentState.SUCCEEDED)
    await until(lambda: agent.status()["online"])  # what it tells of itself is behind what it does
    assert await examined(agent) == (0, set())

    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_unix_connection(agent.state_dir / "agent.sock")
        writer.write(b"POST /v2/models/toy/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        assert b" 413 " in await reader.readline()
        writer.close()
    with sqlite_database.transaction() as session:
        devices.revoke(session, agent.device_id, reason="lost", now=datetime.now(UTC), actor="test")
    await until(lambda: not agent.status()["online"])
    assert await examined(agent) == (1, {"requests_refused", "offline", "device_revoked"})

    await asyncio.to_thread(agent.kill)
    again = await asyncio.to_thread(agent_cli, "enroll", token(), "--state-dir", agent.state_dir, "--replace")
    assert again.returncode == 0, again.stderr
    config = settings.load(agent.state_dir / "agent.json")
    assert (config.name, config.device_class, config.attributes) == ("watch-1", "watch", {"floor": 2}), "as it was set"
    await gateway.stop(grace=0.1)
    assert await examined(agent) == (1, {"agent_died", "coordinator_unreachable"})
