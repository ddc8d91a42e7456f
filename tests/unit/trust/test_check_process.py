"""The agent's side of a check: a real child process, metadata that comes slowly or not at all, a root that is not pinned."""

from __future__ import annotations

import asyncio
import json

import pytest
from trusted import CheckingDevice, Publisher

from fogline_client.trust.check import TufTrust, begin
from fogline_client.trust.layout import TrustDir
from fogline_shared.errors import FoglineError, Unavailable
from fogline_shared.protocol import DesiredState


@pytest.fixture
def publisher(sqlite_database, tmp_path):
    return Publisher(sqlite_database, tmp_path / "publisher")


class Plant:
    """One device's trust over a network whose delay and faults the test sets."""

    def __init__(self, publisher: Publisher, folder: TrustDir) -> None:
        self.publisher = publisher
        self.folder = folder
        wanted = publisher.release()
        self.desired = DesiredState(
            generation=1, artifact_digest=wanted.digest, artifact_size=wanted.size,
            release_id=wanted.release_id, variant=wanted.variant,
        )  # fmt: skip
        self.delay_s = 0.0
        self.fault: FoglineError | None = None
        self.asked: list[str] = []
        self.online = asyncio.Event()
        self.online.set()

    async def fetch(self, name: str) -> bytes | None:
        self.asked.append(name)
        await asyncio.sleep(self.delay_s)
        if self.fault is not None:
            raise self.fault
        return self.publisher.get(name)

    def trust(self, *, deadline_s: float = 60.0) -> TufTrust:
        return TufTrust(
            self.folder, self.fetch, self.online.wait, deadline_s=deadline_s,
            clock=self.publisher.now.timestamp,
        )  # fmt: skip


@pytest.fixture
def plant(publisher, tmp_path):
    return Plant(publisher, CheckingDevice(tmp_path / "device", publisher).trust)


async def test_slow_retrieval_ends_at_the_deadline(plant):
    """python-tuf alone waits as long as bytes come."""
    plant.delay_s = 3600.0
    with pytest.raises(Unavailable) as refused:
        await plant.trust(deadline_s=0.2).check(plant.desired)
    assert refused.value.code == "trust_too_slow"
    plant.delay_s = 0.05
    await plant.trust().check(plant.desired)


async def test_a_device_that_is_offline_waits_without_a_deadline(plant):
    plant.online.clear()
    check = asyncio.create_task(plant.trust(deadline_s=30.0).check(plant.desired))
    await asyncio.sleep(0.1)
    assert not check.done()
    assert plant.asked == []
    plant.online.set()
    await check


async def test_a_check_that_passed_is_not_repeated_for_the_next_step(plant):
    trust = plant.trust()
    await trust.check(plant.desired)
    asked = len(plant.asked)
    await trust.check(plant.desired)
    assert len(plant.asked) == asked


async def test_refusals_and_faults_keep_their_codes_through_the_pipe(plant):
    plant.fault = Unavailable("connection_closed", "gone")
    with pytest.raises(Unavailable) as refused:
        await plant.trust().check(plant.desired)
    assert refused.value.code == "connection_closed"
    plant.fault = None
    plant.folder.floor.write_text("[")
    with pytest.raises(FoglineError) as refused_by_child:
        await plant.trust().check(plant.desired)
    assert refused_by_child.value.code == "bad_trust_floor"


async def test_a_device_that_enrolled_before_there_was_a_root_takes_the_coordinators_once(plant):
    begin(plant.folder, b"")
    await plant.trust().check(plant.desired)
    assert json.loads(plant.folder.pinned.read_bytes())["signed"]["_type"] == "root"
    plant.folder.pinned.unlink()
    with pytest.raises(FoglineError) as refused:
        await plant.trust().check(plant.desired)
    assert refused.value.code == "trust_root_lost"
