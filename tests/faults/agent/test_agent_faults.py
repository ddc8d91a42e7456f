"""SIGKILL, a network that goes away, a full disk, a revoked certificate: the device ends where it should."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import time
from datetime import UTC, datetime

import onnx
import pytest
from agent_process import AgentProcess, agent_cli, until
from artifacts import artifact, example
from inference_watch import InferenceWatch
from sqlalchemy import func, select

from fogline_server.devices import service as devices
from fogline_server.rollouts.desired import Target
from fogline_server.telemetry.tables import Window
from fogline_shared.states import AssignmentState


def padded(size: int, **options) -> bytes:
    """An artifact of about ``size`` incompressible bytes."""
    model = onnx.load_from_string(artifact(**options))
    entry = model.metadata_props.add()
    entry.key, entry.value = "padding", os.urandom(size // 2).hex()
    return model.SerializeToString()


def watching(agent: AgentProcess, *targets: Target) -> InferenceWatch:
    """Ask the agent all the while; target i calls the example of label 1 the class 1 + i, as ``shift=i`` makes it."""
    return InferenceWatch([agent], recipe="toy", x=example(1), answers={t.digest: 1 + i for i, t in enumerate(targets)})


async def test_killed_in_a_download_resumes_where_it_was(enrolled, cloud, proxy) -> None:
    agent = await enrolled()
    agent.route_through(proxy.port)
    agent.start()
    first, target = cloud.publish(artifact()), cloud.publish(padded(8 << 20, shift=1))
    await cloud.ends(cloud.roll_out(agent.device_id, first), AssignmentState.SUCCEEDED)
    await agent.serves(first.digest)
    proxy.rate = 4 << 20
    part = agent.state_dir / "incoming" / f"{target.digest}.part"
    with watching(agent, first, target) as watch:
        assignment = cloud.roll_out(agent.device_id, target)
        await until(lambda: part.exists() and part.stat().st_size >= 2 << 20)
        with watch.outage(agent):
            agent.kill()
            kept = part.stat().st_size
            assert kept < target.size
            before, proxy.rate = proxy.carried, None
            agent.start()
        assert await cloud.ends(assignment, AssignmentState.SUCCEEDED) == ""
        assert proxy.carried - before < target.size - kept + (1 << 20), "the rest came, not the whole"
        await agent.serves(target.digest)
    assert watch.served(agent) == [first.digest, target.digest]


async def test_connection_cut_in_a_download_resumes_in_the_same_process(enrolled, cloud, proxy) -> None:
    agent = await enrolled()
    agent.route_through(proxy.port)
    agent.start()
    first, target = cloud.publish(artifact()), cloud.publish(padded(8 << 20, shift=1))
    await cloud.ends(cloud.roll_out(agent.device_id, first), AssignmentState.SUCCEEDED)
    await agent.serves(first.digest)
    proxy.rate = 4 << 20
    part = agent.state_dir / "incoming" / f"{target.digest}.part"
    with watching(agent, first, target) as watch:
        assignment = cloud.roll_out(agent.device_id, target)
        for size in (1 << 20, 3 << 20):
            await until(lambda size=size: part.exists() and part.stat().st_size >= size)
            await proxy.cut()
            await proxy.heal()
        assert await cloud.ends(assignment, AssignmentState.SUCCEEDED) == ""
        await agent.serves(target.digest)
    assert proxy.carried < target.size + (4 << 20), "what had come was not sent again"
    assert watch.served(agent) == [first.digest, target.digest]


@pytest.mark.parametrize("step", ["ANY", "PROBATION"])
async def test_killed_in_a_swap_ends_at_the_new_model(enrolled, cloud, step: str) -> None:
    agent = await enrolled()
    agent.start()
    targets = [cloud.publish(artifact()), cloud.publish(artifact(shift=1))]
    await cloud.ends(cloud.roll_out(agent.device_id, targets[0]), AssignmentState.SUCCEEDED)

    def in_swap() -> bool:
        end = time.monotonic() + 30
        while time.monotonic() < end:
            now = agent.journal_step()
            if now and (now == step or (step == "ANY" and now != "DOWNLOADING")):
                return True
            time.sleep(0.001)  # the gateway lives in this process, and the device asks it for signed metadata first
        return False

    await agent.serves(targets[0].digest)
    with watching(agent, *targets) as watch:
        for i in (1, 0, 1):
            looking = asyncio.create_task(asyncio.to_thread(in_swap))
            assignment = cloud.roll_out(agent.device_id, targets[i], probation_s=0.7)
            assert await looking
            with watch.outage(agent):
                agent.kill()
                agent.start()
            assert await cloud.ends(assignment, AssignmentState.SUCCEEDED) == ""
            await agent.serves(targets[i].digest)
    assert watch.served(agent) == [targets[i].digest for i in (0, 1, 0, 1)], "never back to the one before"


async def test_crash_loop_in_probation_goes_back(enrolled, cloud) -> None:
    agent = await enrolled()
    agent.start()
    sound, bad = cloud.publish(artifact()), cloud.publish(artifact(shift=1))
    await cloud.ends(cloud.roll_out(agent.device_id, sound), AssignmentState.SUCCEEDED)
    await agent.serves(sound.digest)
    with watching(agent, sound, bad) as watch:
        assignment = cloud.roll_out(agent.device_id, bad, probation_s=60)
        await until(lambda: agent.journal_step() == "PROBATION")
        for start in range(1, 5):
            with watch.outage(agent):
                agent.kill()
                agent.start()
            if start < 4:
                await agent.serves(bad.digest)
        assert await cloud.ends(assignment, AssignmentState.REVERTED) == "crash_loop"
        await agent.serves(sound.digest)
    assert watch.served(agent) == [sound.digest, bad.digest, sound.digest]


@pytest.mark.slow
async def test_offline_for_a_while_serves_spools_and_catches_up(enrolled, cloud, proxy, sqlite_database) -> None:
    agent = await enrolled()
    agent.route_through(proxy.port)
    agent.start()
    first, second = cloud.publish(artifact()), cloud.publish(artifact(shift=1))
    await cloud.ends(cloud.roll_out(agent.device_id, first), AssignmentState.SUCCEEDED)
    await agent.serves(first.digest)
    await proxy.cut()
    await until(lambda: not agent.status()["online"])
    assignment = cloud.roll_out(agent.device_id, second)
    for _ in range(4):
        await asyncio.to_thread(agent.ask)
        await asyncio.sleep(0.6)
    # What was measured offline survives a restart, too.
    await asyncio.to_thread(agent.stop)
    agent.start()
    await agent.serves(first.digest)
    await asyncio.to_thread(agent.ask)
    await proxy.heal()
    assert await cloud.ends(assignment, AssignmentState.SUCCEEDED) == ""

    def counted() -> bool:
        with sqlite_database.read() as session:
            total = select(func.sum(Window.predictions)).where(Window.artifact_digest == first.digest)
            return session.scalar(total) == 5

    await until(counted)


async def test_full_disk_is_reported_and_the_old_model_serves(enrolled, cloud) -> None:
    agent = await enrolled()
    agent.start()
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    sound, big = cloud.publish(artifact()), cloud.publish(padded(3 << 20, shift=1))
    await cloud.ends(cloud.roll_out(agent.device_id, sound), AssignmentState.SUCCEEDED)
    await agent.serves(sound.digest)
    assignment = cloud.roll_out(agent.device_id, big)
    assert await cloud.ends(assignment, AssignmentState.REJECTED) == "disk_full"
    assert agent.status()["active_digest"] == sound.digest
    await asyncio.to_thread(agent.ask)
    # With room again, the next rollout goes through: nothing was lost.
    resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert await cloud.ends(cloud.roll_out(agent.device_id, big), AssignmentState.SUCCEEDED) == ""


async def test_revoked_device_serves_on_but_is_turned_away(enrolled, cloud, sqlite_database) -> None:
    agent = await enrolled()
    agent.start()
    target = cloud.publish(artifact())
    await cloud.ends(cloud.roll_out(agent.device_id, target), AssignmentState.SUCCEEDED)
    await agent.serves(target.digest)
    with sqlite_database.transaction() as session:
        devices.revoke(session, agent.device_id, now=datetime.now(UTC), actor="test")
    await until(lambda: "device_revoked" in str(agent.status().get("last_error")))
    await asyncio.to_thread(agent.ask)


async def test_second_agent_and_taken_port_are_refused_with_a_code(enrolled) -> None:
    agent = await enrolled()
    agent.start()
    await until(lambda: agent.status().get("url"))
    second = await asyncio.to_thread(agent_cli, "run", "--state-dir", agent.state_dir, "--port", 0)
    assert (second.returncode, "already_running" in second.stderr) == (5, True)
    other = await enrolled("watch-2")
    port = str(agent.status()["url"]).rsplit(":", 1)[1]
    taken = await asyncio.to_thread(agent_cli, "run", "--state-dir", other.state_dir, "--port", port)
    assert (taken.returncode, "port_in_use" in taken.stderr) == (3, True)


async def test_enrolment_refusals_have_codes_and_exit_codes(tmp_path, token) -> None:
    good = token()

    async def attempt(text: str, folder: str, *more: str) -> tuple[int, str]:
        done = await asyncio.to_thread(
            agent_cli, "enroll", text, "--state-dir", tmp_path / folder, "--name", folder, "--json", *more
        )
        return done.returncode, json.loads(done.stderr)["error"]["code"] if done.returncode else ""

    assert await attempt("nonsense", "a") == (2, "token_malformed")
    assert await attempt(good, "a") == (0, "")
    assert await attempt(good, "b") == (6, "token_used")
    assert await attempt(token(), "a") == (5, "already_enrolled")
    assert await attempt(token(device_name="other"), "c") == (6, "token_for_other_device")
    done = await asyncio.to_thread(agent_cli, "run", "--state-dir", tmp_path / "nobody")
    assert done.returncode == 2
    assert "not_configured" in done.stderr
