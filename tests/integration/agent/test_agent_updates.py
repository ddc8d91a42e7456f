"""A real agent against a real gateway: desired state, swaps, refusals, telemetry."""

from __future__ import annotations

import asyncio
import json

import numpy as np
from agent_process import agent_cli, until
from artifacts import artifact, example
from poisoned import not_finite
from sqlalchemy import func, select

from fogline_client import local
from fogline_server.telemetry.tables import Window
from fogline_shared.states import AssignmentState


async def test_agent_reaches_its_desired_state_serves_it_and_reports(enrolled, cloud, sqlite_database) -> None:
    agent = await enrolled()
    agent.start()
    target = cloud.publish(artifact())
    assignment = cloud.roll_out(agent.device_id, target)
    assert await cloud.ends(assignment, AssignmentState.SUCCEEDED) == ""
    await agent.serves(target.digest)
    await asyncio.to_thread(agent.ask, 2)

    def windows() -> int:
        with sqlite_database.read() as session:
            return session.scalar(select(func.sum(Window.predictions)).where(Window.artifact_digest == target.digest))

    assert await until(windows) == 1
    assert agent.memory_mb < 100
    endpoint = local.Endpoint(url=str(agent.status()["url"]), socket="")
    metrics = (await asyncio.to_thread(local.get, endpoint, "/metrics")).splitlines()
    assert {"fogline_serving_answered_total 1", "fogline_agent_predictions_total 1"} < set(metrics)
    assert any(line.startswith(f'fogline_agent_active_info{{digest="{target.digest}"') for line in metrics)
    shown = await asyncio.to_thread(agent_cli, "status", "--state-dir", agent.state_dir, "--json")
    facts = json.loads(shown.stdout)
    assert (facts["online"], facts["active_digest"], facts["generation"]) == (True, target.digest, 1)


async def test_second_release_swaps_and_rollback_returns_without_a_download(enrolled, cloud) -> None:
    agent = await enrolled()
    agent.start()
    first, second = cloud.publish(artifact()), cloud.publish(artifact(shift=1))
    for target in (first, second, first):
        await cloud.ends(cloud.roll_out(agent.device_id, target), AssignmentState.SUCCEEDED)
        await agent.serves(target.digest)
    assert not (agent.state_dir / "incoming").exists()


async def test_foreign_artifact_is_rejected_and_the_old_model_serves(enrolled, cloud) -> None:
    agent = await enrolled()
    agent.start()
    sound = cloud.publish(artifact())
    await cloud.ends(cloud.roll_out(agent.device_id, sound), AssignmentState.SUCCEEDED)
    await agent.serves(sound.digest)
    for content, code in (
        (b"not a model at all", "not_a_model"),
        (artifact()[:-40], "not_a_model"),
        (artifact(manifest=None), "manifest_missing"),
        (artifact(shift=1, known_label=1), "known_answer_failed"),
    ):
        assignment = cloud.roll_out(agent.device_id, cloud.publish(content))
        assert await cloud.ends(assignment, AssignmentState.REJECTED) == code
        await asyncio.to_thread(agent.ask)
        assert agent.status()["active_digest"] == sound.digest


async def test_model_that_fails_in_probation_is_reverted_on_the_device(enrolled, cloud, tmp_path) -> None:
    np.savez(tmp_path / "x.npz", x=np.stack([example(i % 3) for i in range(9)]))
    agent = await enrolled(
        "watch-1",
        "--source",
        "replay",
        "--source-option",
        f"path={tmp_path / 'x.npz'}",
        "--source-option",
        "rate_hz=50",
    )
    agent.start()
    sound = cloud.publish(artifact())
    await cloud.ends(cloud.roll_out(agent.device_id, sound), AssignmentState.SUCCEEDED)
    assignment = cloud.roll_out(agent.device_id, cloud.publish(not_finite()), probation_s=30)
    assert await cloud.ends(assignment, AssignmentState.REVERTED) == "model_not_finite"
    await agent.serves(sound.digest)


async def test_no_model_is_a_desired_state_too(enrolled, cloud) -> None:
    agent = await enrolled()
    agent.start()
    bad = cloud.publish(artifact(shift=1, known_label=1))
    assignment = cloud.roll_out(agent.device_id, bad)
    # The coordinator takes the assignment back: to nothing, since the device had nothing.
    assert await cloud.ends(assignment, AssignmentState.REJECTED) == "known_answer_failed"
    await until(lambda: agent.status().get("generation") == 2)
    assert agent.status()["active_digest"] == ""


async def test_predict_asks_the_active_model_without_the_agent(enrolled, cloud, tmp_path) -> None:
    agent = await enrolled()
    agent.start()
    await cloud.ends(cloud.roll_out(agent.device_id, cloud.publish(artifact())), AssignmentState.SUCCEEDED)
    await asyncio.to_thread(agent.stop)
    np.save(tmp_path / "x.npy", example(2))
    done = await asyncio.to_thread(agent_cli, "predict", tmp_path / "x.npy", "--state-dir", agent.state_dir, "--json")
    assert json.loads(done.stdout)[0]["label"] == 2, done.stderr
