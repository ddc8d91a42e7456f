"""A withdrawn release: what is signed of it, beside a release that nobody withdrew."""

from __future__ import annotations

import pytest
from trusted import DAY, Attacker, CheckingDevice, Publisher

from fogline_client.trust.layout import Wanted
from fogline_server.db import events
from fogline_server.registry import service
from fogline_server.registry.tables import Variant
from fogline_server.rollouts import unlisting
from fogline_server.trust import catalogue
from fogline_server.trust.model import LISTED_WHOLE
from fogline_shared.errors import Conflict, Unavailable


@pytest.fixture
def publisher(database, tmp_path):
    return Publisher(database, tmp_path / "publisher")


@pytest.fixture
def on_sqlite(sqlite_database, tmp_path):
    return Publisher(sqlite_database, tmp_path / "publisher")


def unlist(publisher: Publisher, wanted: Wanted) -> None:
    publisher.now += DAY / 100
    with publisher.db.transaction() as session:
        unlisting.unlist(session, publisher.keys, wanted.release_id, now=publisher.now, actor="test")


def relist(publisher: Publisher, wanted: Wanted) -> None:
    publisher.now += DAY / 100
    with publisher.db.transaction() as session:
        unlisting.relist(session, publisher.keys, wanted.release_id, now=publisher.now, actor="test")


def state(publisher: Publisher, wanted: Wanted) -> str:
    with publisher.db.read() as session:
        return service.get_release(session, wanted.release_id).state


@pytest.mark.parametrize("whole", [LISTED_WHOLE, 1], ids=["listed whole", "in bins"])
def test_no_device_installs_a_withdrawn_release_anew_until_it_is_listed_again(publisher, tmp_path, monkeypatch, whole):
    monkeypatch.setattr(catalogue, "LISTED_WHOLE", whole)
    bad, *good = (publisher.release(b"%d" % n) for n in range(4))
    assert bool(publisher.newest("release").signed.targets) == (whole > 1)
    device = CheckingDevice(tmp_path / "device", publisher)
    assert device.refuses(bad) == ""
    unlist(publisher, bad)
    newcomer = CheckingDevice(tmp_path / "newcomer", publisher)
    for each in (device, newcomer):
        assert each.refuses(bad) == "target_not_listed"
        assert [each.refuses(other) for other in (good[0], good[-1])] == ["", ""]
    after = publisher.release(b"after")
    assert (device.refuses(bad), device.refuses(after)) == ("target_not_listed", "")
    relist(publisher, bad)
    assert [each.refuses(bad) for each in (device, newcomer)] == ["", ""]
    with publisher.db.read() as session:
        kinds = [e.kind for e in events.latest_events(session, subject_id=bad.release_id)]
    assert kinds == ["release.relisted", "release.unlisted"]


def test_a_thief_of_nothing_cannot_replay_the_list_that_had_it(on_sqlite, tmp_path):
    publisher = on_sqlite
    bad, good = publisher.release(b"bad"), publisher.release(b"good")
    device, attacker = CheckingDevice(tmp_path / "device", publisher), Attacker(publisher)
    before = attacker.record()
    assert device.refuses(bad, before.get) == ""
    unlist(publisher, bad)
    assert device.refuses(good) == ""
    assert device.refuses(bad, before.get) == "trust_rolled_back"


def test_a_withdrawn_release_is_not_signed_anew_with_time_or_new_keys(on_sqlite, tmp_path):
    publisher = on_sqlite
    bad, good = publisher.release(b"bad"), publisher.release(b"good")
    unlist(publisher, bad)
    assert "release" in publisher.pass_time(16 * DAY)
    device = CheckingDevice(tmp_path / "device", publisher)
    assert (device.refuses(bad), device.refuses(good)) == ("target_not_listed", "")
    publisher.rotate(online=True)
    assert (device.refuses(bad), device.refuses(good)) == ("target_not_listed", "")
    relist(publisher, bad)
    assert device.refuses(bad) == ""


def test_what_changed_meanwhile_is_not_signed_again(on_sqlite):
    publisher = on_sqlite
    bad, honest = publisher.release(b"bad"), publisher.release(b"honest")
    unlist(publisher, bad)
    unlist(publisher, honest)
    with publisher.db.transaction() as session:
        session.get_one(Variant, (bad.release_id, bad.variant)).digest = "0" * 64
    with pytest.raises(Conflict, match="seal_broken"):
        relist(publisher, bad)
    relist(publisher, honest)
    assert (state(publisher, bad), state(publisher, honest)) == ("UNLISTED", "READY")


def test_a_release_is_withdrawn_only_if_that_is_signed_and_once(publisher):
    bad = publisher.release()
    hidden = publisher.keys.folder.rename(publisher.keys.folder.with_name("hidden"))
    with pytest.raises(Unavailable, match="trust_key_missing"):
        unlist(publisher, bad)
    assert state(publisher, bad) == "READY"
    hidden.rename(publisher.keys.folder)
    unlist(publisher, bad)
    assert state(publisher, bad) == "UNLISTED"
    with pytest.raises(Conflict, match="illegal_transition"):
        unlist(publisher, bad)
    relist(publisher, bad)
    with pytest.raises(Conflict, match="illegal_transition"):
        relist(publisher, bad)
