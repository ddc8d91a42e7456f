"""Withdrawing a release that something needs is refused, and nothing new begins to need one that was withdrawn."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from fleet import Fleet
from sqlalchemy import select

from fogline_server.db.database import Database
from fogline_server.devices.tables import Device
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.registry.service import set_alias
from fogline_server.rollouts import service, unlisting
from fogline_server.trust.keys import OnlineKeys
from fogline_shared.errors import Conflict


class Withdrawing(Fleet):
    """A fleet whose releases can be withdrawn; nothing is signed, for there is no root."""

    def __init__(self, db: Database, doorbell: Doorbell, keys: OnlineKeys) -> None:
        super().__init__(db, doorbell)
        self.keys = keys

    def unlist(self, release_id: str) -> str:
        """What is in the way; empty: it was withdrawn."""
        try:
            with self.db.transaction() as session:
                unlisting.unlist(session, self.keys, release_id, now=self.now, actor="test")
        except Conflict as error:
            if error.code != "release_in_use":
                raise
            return error.message
        return ""

    def refuses(self, act, *args) -> str:
        """The code with which a use case is refused."""
        with pytest.raises(Conflict) as error, self.db.transaction() as session:
            act(session, *args, now=self.now, actor="test")
        return error.value.code


@pytest.fixture
def fleet(database: Database, doorbell: Doorbell, tmp_path) -> Withdrawing:
    return Withdrawing(database, doorbell, OnlineKeys(tmp_path / "keys"))


@pytest.fixture
def small(sqlite_database: Database, doorbell: Doorbell, tmp_path) -> Withdrawing:
    return Withdrawing(sqlite_database, doorbell, OnlineKeys(tmp_path / "keys"))


def test_what_needs_a_release_is_named_until_nothing_does(fleet: Withdrawing) -> None:
    devices = fleet.enrol(3)
    bad = fleet.release("bad")
    with fleet.db.transaction() as session:
        set_alias(session, "champion", bad, now=fleet.now, actor="test")
    assert "alias champion stands on it" in fleet.unlist(bad)
    first = fleet.rollout(bad, stages=[100])
    assert f"rollout {first} of it is SCHEDULED" in fleet.unlist(bad)
    fleet.until(first, "SUCCEEDED")
    assert "3 devices should run it" in fleet.unlist(bad)
    assert f"devices that come later get it by rollout {first}" in fleet.unlist(bad)
    better = fleet.release("better")
    second = fleet.rollout(better, stages=[50, 100], soak_s=60)
    fleet.step()
    assert f"rollout {second} may return devices to it" in fleet.unlist(bad)
    fleet.until(second, "SUCCEEDED")
    assert fleet.unlist(bad) == "release 'bad' cannot be withdrawn: alias champion stands on it: move it"
    with fleet.db.transaction() as session:
        set_alias(session, "champion", better, now=fleet.now, actor="test")
    assert fleet.unlist(bad) == ""
    assert len(fleet.running("better")) == len(devices)
    # Once it is withdrawn, no one returns to it.
    rollback = lambda session, **who: service.rollback(session, second, reason="", **who)  # noqa: E731
    assert fleet.refuses(rollback) == "release_unlisted"


def test_nothing_new_begins_with_a_withdrawn_release(small: Withdrawing) -> None:
    small.enrol(2)
    bad = small.release("bad")
    draft = small.rollout(bad, start=False)
    later = small.rollout(bad, start=False)
    with small.db.transaction() as session:
        service.start(session, later, now=small.now, actor="test")
        service.cancel(session, later, now=small.now, actor="test")
    assert small.unlist(bad) == ""
    assert small.refuses(service.start, draft) == "release_unlisted"
    assert small.refuses(set_alias, "champion", bad) == "release_unlisted"
    with pytest.raises(Conflict, match="release_unlisted"):
        small.rollout(bad)
    small.step()
    assert small.running("bad") == []


def test_a_start_and_a_withdrawal_at_once_never_both_succeed(fleet: Withdrawing) -> None:
    def start(rollout_id: str) -> str:
        try:
            with fleet.db.transaction() as session:
                service.start(session, rollout_id, now=fleet.now, actor="test")
        except Conflict as error:
            return error.code
        return ""

    for turn in range(20):
        release = fleet.release(f"v{turn}")
        rollout = fleet.rollout(release, start=False)
        with ThreadPoolExecutor(2) as pool:
            started, withdrawn = pool.submit(start, rollout), pool.submit(fleet.unlist, release)
            refused = started.result(), withdrawn.result()
        assert refused[0] == "release_unlisted" or f"rollout {rollout} of it is SCHEDULED" in refused[1], refused
        assert not all(refused)
        if not refused[0]:
            with fleet.db.transaction() as session:
                service.cancel(session, rollout, now=fleet.now, actor="test")


def test_devices_that_come_later_get_no_withdrawn_release(small: Withdrawing) -> None:
    small.enrol(1, tags=("lab",))
    bad = small.release("bad")
    small.until(small.rollout(bad, stages=[100]), "SUCCEEDED")
    better = small.promote("better", stages=[100])
    assert small.unlist(bad) == ""
    # The newer rollout no longer covers anybody: the older one would be the latest again.
    with small.db.transaction() as session:
        service.get_rollout(session, better).state = "ROLLED_BACK"
    (late,) = small.enrol(1)
    for _ in range(3):
        small.step()
    assert late.digest == ""


def test_a_revoked_device_needs_nothing(small: Withdrawing) -> None:
    small.enrol(1)
    bad = small.release("bad")
    small.until(small.rollout(bad, stages=[100]), "SUCCEEDED")
    other = small.rollout(small.release("other"), stages=[100])
    with small.db.transaction() as session:
        session.scalars(select(Device)).one().state = "REVOKED"
    assert "rollout" in small.unlist(bad)
    small.now += timedelta(seconds=1)
    with small.db.transaction() as session:
        service.get_rollout(session, other).state = "SUCCEEDED"
        service.get_rollout(session, other).finished_at = small.now
    assert small.unlist(bad) == ""
