"""A real agent installs what is signed, and nothing else; whatever is wrong with signatures, the old model serves."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from agent_process import agent_cli, until
from artifacts import artifact

from fogline_server.db.base import utc_now
from fogline_server.trust import publish, tick
from fogline_server.trust.ceremony import Folder, Plan
from fogline_server.trust.keys import OnlineKeys
from fogline_shared.states import AssignmentState


@pytest.fixture
async def serving(enrolled, cloud):
    """An agent that serves a signed artifact."""
    agent = await enrolled()
    assert (agent.state_dir / "trust" / "root.json").exists()  # it came with the certificate
    agent.start()
    sound = cloud.publish(artifact())
    await cloud.ends(cloud.roll_out(agent.device_id, sound), AssignmentState.SUCCEEDED)
    await agent.serves(sound.digest)
    return agent, sound


async def test_what_nobody_signed_is_refused(serving, cloud) -> None:
    agent, sound = serving
    shown = await asyncio.to_thread(agent_cli, "status", "--state-dir", agent.state_dir, "--json")
    assert json.loads(shown.stdout)["trusted_root"] == 1
    assignment = cloud.roll_out(agent.device_id, cloud.publish(artifact(shift=1), signed=False))
    assert await cloud.ends(assignment, AssignmentState.REJECTED) == "target_not_listed"
    await asyncio.to_thread(agent.ask)
    assert agent.status()["active_digest"] == sound.digest
    signed = cloud.publish(artifact(shift=2))
    await cloud.ends(cloud.roll_out(agent.device_id, signed), AssignmentState.SUCCEEDED)


async def test_metadata_that_has_ended_holds_new_models_back_and_never_the_old_one(
    serving, cloud, sqlite_database, online_keys
) -> None:
    agent, sound = serving
    target, now = cloud.publish(artifact(shift=1)), utc_now()
    with sqlite_database.transaction() as session:
        publish.publish(session, online_keys, [], now=now - timedelta(days=3))
    assignment = cloud.roll_out(agent.device_id, target)
    await until(lambda: cloud.stands(assignment) == (AssignmentState.DOWNLOADING, "trust_expired"))
    await asyncio.to_thread(agent.ask)
    assert agent.status()["active_digest"] == sound.digest
    assert tick.tick(sqlite_database, online_keys, now=now) == ["timestamp"]
    await cloud.ends(assignment, AssignmentState.SUCCEEDED)


async def test_a_root_given_by_the_owner_is_what_counts(enrolled, cloud, token, tmp_path) -> None:
    online = {role: signer.public_key for role, signer in OnlineKeys(tmp_path / "others").offered().items()}
    Folder(tmp_path / "strangers").init(online, Plan(), passphrase=None, now=utc_now())
    agent = await enrolled("watch-1", "--trust-root", tmp_path / "strangers" / "metadata" / "1.root.json")
    agent.start()
    assignment = cloud.roll_out(agent.device_id, cloud.publish(artifact()))
    assert await cloud.ends(assignment, AssignmentState.REJECTED) == "trust_signature_invalid"
    (tmp_path / "no-root.json").write_text("{}")
    wrong = ["--state-dir", tmp_path / "watch-2", "--name", "watch-2", "--trust-root", tmp_path / "no-root.json"]
    done = await asyncio.to_thread(agent_cli, "enroll", token(), *wrong)
    assert (done.returncode, "bad_trust_file" in done.stderr) == (2, True), done.stderr
