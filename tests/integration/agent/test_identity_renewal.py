"""Identity: a private file, renewed in time while the device goes on working."""

from __future__ import annotations

import asyncio
import json
import stat
import time
from dataclasses import replace
from datetime import timedelta
from random import Random

import pytest
from agent_process import until
from artifacts import artifact

from fogline_client import identity
from fogline_client.renewal import Renewal
from fogline_server.db.base import utc_now
from fogline_server.gateway.parts import GatewayOptions
from fogline_shared.enrollment import build_csr
from fogline_shared.errors import Corrupt, Unauthenticated
from fogline_shared.states import AssignmentState


@pytest.fixture
def options() -> GatewayOptions:
    """Certificates that live six seconds."""
    return GatewayOptions(poll_s=0.2, telemetry_every_s=0.5, certificate_days=6 / 86_400)


async def test_certificate_is_renewed_and_the_device_works_past_its_first_one(enrolled, cloud) -> None:
    agent = await enrolled()
    path = agent.state_dir / "identity.json"
    first = identity.load(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(agent.state_dir.stat().st_mode) == 0o700
    agent.start()
    await until(lambda: time.time() > first.expires_at + 1)
    await until(lambda: identity.load(path).expires_at > first.expires_at)
    renewed = identity.load(path)
    assert renewed.device_id == first.device_id
    assert renewed.key_pem != first.key_pem
    assert renewed.expires_at > first.expires_at
    assignment = cloud.roll_out(agent.device_id, cloud.publish(artifact()))
    assert await cloud.ends(assignment, AssignmentState.SUCCEEDED) == ""


async def test_renewal_is_due_at_two_thirds_of_the_life(enrolled) -> None:
    agent = await enrolled()
    known = identity.load(agent.state_dir / "identity.json")
    life = known.expires_at - known.issued_at
    assert 5 <= life <= 7
    assert known.renewal_at == pytest.approx(known.issued_at + life * 2 / 3)


def test_missing_and_damaged_identities_have_codes(tmp_path) -> None:
    with pytest.raises(Unauthenticated, match="not_enrolled"):
        identity.load(tmp_path / "identity.json")
    for text in ("{", json.dumps({"device_id": "x"}), json.dumps(7)):
        (tmp_path / "identity.json").write_text(text)
        with pytest.raises(Corrupt, match="bad_identity"):
            identity.load(tmp_path / "identity.json")


@pytest.fixture
async def returning(enrolled, authority):
    """A device whose certificate ended ten days ago; its agent is not started."""
    agent = await enrolled()
    path = agent.state_dir / "identity.json"
    known = identity.load(path)
    then = utc_now() - timedelta(days=40)
    pem, _, until_then = authority.sign_device(
        build_csr(identity.key_of(known), known.device_name), common_name=known.device_id, days=30, now=then
    )
    times = {"issued_at": then.timestamp(), "expires_at": until_then.timestamp()}
    identity.save(replace(known, certificate_pem=pem.decode(), **times), path)
    return agent


async def test_device_that_was_offline_beyond_its_certificates_end_comes_back_by_itself(returning, cloud) -> None:
    path = returning.state_dir / "identity.json"
    ended = identity.load(path)
    returning.start()
    assignment = cloud.roll_out(returning.device_id, cloud.publish(artifact()))
    await cloud.ends(assignment, AssignmentState.SUCCEEDED)
    renewed = identity.load(path)
    assert renewed.device_id == ended.device_id
    assert renewed.expires_at > time.time() > ended.expires_at
    assert renewed.key_pem != ended.key_pem
    assert renewed.enroll_target == ended.enroll_target != ""


async def test_certificate_that_cannot_be_saved_serves_as_long_as_the_process(returning) -> None:
    path = returning.state_dir / "identity.json"
    before = path.read_bytes()
    path.with_name("identity.json.new").mkdir()
    returning.start()
    await until(lambda: returning.status().get("online"))
    assert path.read_bytes() == before


async def test_a_clock_that_is_ahead_asks_once_and_not_for_ever(returning, monkeypatch) -> None:
    ended = identity.load(returning.state_dir / "identity.json")
    held = [ended]
    real, asked = time.time, []
    monkeypatch.setattr(time, "time", lambda: real() + 100 * 86_400)

    def take(issued: identity.Identity) -> None:
        held[0] = issued
        asked.append(issued)

    renewal = Renewal(
        path=returning.state_dir / "other.json",
        current=lambda: held[0],
        renewed=take,
        online=asyncio.Event(),
        rng=Random(0),
    )
    running = asyncio.create_task(renewal.run())
    await until(lambda: asked)
    await asyncio.sleep(0.3)
    running.cancel()
    assert len(asked) == 1
    assert asked[0].expires_at < real() + 86_400, "a new one, though it is old by this clock"
