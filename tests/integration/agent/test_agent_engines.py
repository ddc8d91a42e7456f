"""The engine that an agent was told to use serves its models, or the agent says at once why it cannot."""

from __future__ import annotations

import asyncio
from pathlib import Path

from agent_process import agent_cli
from artifacts import artifact

from fogline_shared.states import AssignmentState


async def test_the_engine_that_was_asked_for_serves(enrolled, cloud) -> None:
    agent = await enrolled("watch", "--engine", "openvino", "--engine-option", "threads=2")
    agent.start()
    target = cloud.publish(artifact())
    assert await cloud.ends(cloud.roll_out(agent.device_id, target), AssignmentState.SUCCEEDED) == ""
    await agent.serves(target.digest)
    await asyncio.to_thread(agent.ask, 2)
    assert "libopenvino" in Path(f"/proc/{agent.process.pid}/maps").read_text()


async def test_an_engine_that_cannot_be_is_told_before_anything_starts(enrolled) -> None:
    agent = await enrolled()
    for words, code in (
        (("--engine", "abacus"), "unknown_engine"),
        (("--engine", "openvino", "--engine-option", "threads=two"), "invalid_engine_option"),
        (("--engine", "onnxruntime_providers", "--engine-option", "providers=Rocket"), "provider_unavailable"),
        (("--engine-option", "beads=7"), "invalid_engine_option"),
    ):
        said = await asyncio.to_thread(agent_cli, "run", "--state-dir", agent.state_dir, *words)
        assert said.returncode in {2, 3}
        assert code in said.stderr
        assert "Traceback" not in said.stderr
