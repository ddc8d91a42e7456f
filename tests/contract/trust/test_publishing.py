"""What the coordinator signs, on both databases: together with sealing, by replicas side by side, again before it ends."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from trusted import DAY, CheckingDevice, Publisher

from fogline_server.db import events
from fogline_server.db.base import utc_now
from fogline_server.registry import tick as registry_tick
from fogline_server.registry.tables import Release, Variant
from fogline_server.trust import catalogue, development, publish, service, store
from fogline_server.trust.ceremony import Folder, Plan
from fogline_server.trust.keys import OnlineKeys
from fogline_server.trust.model import LISTED_WHOLE
from fogline_server.trust.tables import TrustMetadata
from fogline_shared.errors import Conflict, InvalidInput, Unavailable


@pytest.fixture
def publisher(database, tmp_path):
    return Publisher(database, tmp_path / "publisher")


def measured_release(db) -> str:
    """A BUILDING release, wholly measured: the next tick seals it."""
    with db.transaction() as session:
        release = Release(
            id="rel_1", name="tiny-1", recipe="tiny", state="BUILDING", lineage={"imported": {}}, report={},
            default_variant="student_int8", created_at=utc_now(),
        )  # fmt: skip
        session.add(release)
        session.flush()
        session.add(Variant(release_id="rel_1", name="student_int8", digest="a" * 64, size=1, metrics={}))
        return release.id


@pytest.mark.parametrize("others", [0, LISTED_WHOLE - 4], ids=["whole", "cut meanwhile"])
def test_replicas_that_seal_at_once_list_every_release(publisher, others):
    publisher.list_others(others)
    with ThreadPoolExecutor(4) as pool:
        wanted = list(pool.map(publisher.release, (b"%d" % n for n in range(8))))
    with publisher.db.read() as session:
        listed = catalogue.listed(session)
        assert (catalogue.bins(session) is not None) is bool(others)
    assert len(listed) == others + 8
    assert {each.path for each in wanted} <= listed.keys()


def test_what_is_signed_is_signed_again_before_it_ends_and_old_versions_go(publisher, tmp_path):
    wanted = publisher.release()
    assert publisher.pass_time(0.4 * DAY) == []
    waits = [0.6 * DAY] * 12 + [4 * DAY] * 3
    renewed = {role for wait in waits for role in publisher.pass_time(wait)}
    assert renewed == {"release", "snapshot", "timestamp"}
    assert CheckingDevice(tmp_path / "device", publisher).refuses(wanted) == ""
    with publisher.db.read() as session:
        assert session.query(TrustMetadata).filter_by(role="timestamp").count() <= 11


def test_offline_signatures_that_end_soon_are_told_once_a_week(database, tmp_path):
    publisher = Publisher(database, tmp_path / "publisher", plan=Plan(root_days=20, targets_days=365))

    def told() -> list[str]:
        with database.read() as session:
            return [event.subject_id for event in events.latest_events(session, kind="trust.ends_soon")]

    publisher.pass_time(0 * DAY)
    publisher.pass_time(6 * DAY)
    assert told() == ["root"]
    publisher.pass_time(2 * DAY)
    assert told() == ["root", "root"]


def test_a_database_restored_from_a_backup_is_ahead_of_every_device_again(publisher, tmp_path):
    device, wanted = CheckingDevice(tmp_path / "device", publisher), publisher.release()
    versions = {role: publisher.newest(role).signed.version for role in ("release", "snapshot", "timestamp")}
    publisher.pass_time(DAY / 100)
    publisher.release(b"lost with the backup")
    assert device.refuses(wanted) == ""
    with publisher.db.transaction() as session:
        for role, version in versions.items():
            session.query(TrustMetadata).filter(TrustMetadata.role == role, TrustMetadata.version > version).delete()
    assert device.refuses(wanted) == "trust_rolled_back"
    publisher.pass_time(DAY / 100)
    publisher.release(b"after")
    assert device.refuses(wanted) == ""


def test_without_a_root_releases_are_sealed_and_listed_by_the_first_import(database, tmp_path):
    keys, now = OnlineKeys(tmp_path / "online"), utc_now()
    with database.transaction() as session:
        assert not publish.publish(session, keys, [], now=now)
        with pytest.raises(Unavailable, match="trust_not_set_up"):
            store.document(session, "timestamp.json")
        facts = service.status(session, keys, throwaway=frozenset(), now=now)
    assert (facts["set_up"], facts["development"]) == (False, False)


def test_a_release_is_not_ready_unless_it_is_signed(publisher):
    release_id = measured_release(publisher.db)
    hidden = publisher.keys.folder.rename(publisher.keys.folder.with_name("hidden"))

    def sealed(session, release, variants):
        publish.publish(session, publisher.keys, publish.listing(release, variants), now=publisher.now)

    with pytest.raises(Unavailable, match="trust_key_missing"):
        registry_tick.tick(publisher.db, now=utc_now(), sealed=sealed)
    with publisher.db.read() as session:
        assert session.get_one(Release, release_id).state == "BUILDING"
    hidden.rename(publisher.keys.folder)
    assert registry_tick.tick(publisher.db, now=utc_now(), sealed=sealed) == 1
    assert f"{release_id}/student_int8.onnx" in publisher.newest("release").signed.targets


def test_a_changed_row_is_not_signed_anew_after_a_rotation(publisher, tmp_path):
    honest, changed = publisher.release(b"one"), publisher.release(b"two")
    with publisher.db.transaction() as session:
        session.get_one(Variant, (changed.release_id, changed.variant)).digest = "0" * 64
    publisher.rotate(online=True)
    assert set(publisher.newest("release").signed.targets) == {honest.path}


def test_throwaway_keys_are_made_once_and_say_so(database, tmp_path):
    keys = OnlineKeys(tmp_path / "trust")
    for _ in range(2):
        development.ensure_root(database, keys, trust_dir=keys.folder, allowed=True, now=utc_now())
    with database.read() as session:
        throwaway = development.throwaway_keys(keys.folder)
        assert service.status(session, keys, throwaway=throwaway, now=utc_now())["development"] is True
        assert session.query(TrustMetadata).filter_by(role="root").count() == 1


def test_imports_that_no_device_would_follow_are_refused(publisher, tmp_path):
    def refused(documents, error=InvalidInput) -> str:
        with pytest.raises(error) as raised, publisher.db.transaction() as session:
            service.import_documents(session, publisher.keys, documents, now=publisher.now, actor="test")
        return raised.value.code

    of_others = {role: signer.public_key for role, signer in OnlineKeys(tmp_path / "others").offered().items()}
    other = Folder(tmp_path / "other")
    other.init(of_others, Plan(), passphrase=None, now=publisher.now)
    assert refused(other.documents(), Conflict) == "trust_other_root"
    publisher.ceremony.rotate((), of_others, Plan(), passphrase=None, now=publisher.now)
    assert refused(publisher.ceremony.documents()) == "trust_signatures_missing"
    publisher.ceremony.sign((), lambda _: b"")
    assert refused(publisher.ceremony.documents()) == "online_key_unknown"
    assert refused([b"{}"]) == refused([publisher.newest("timestamp").to_bytes()]) == "bad_trust_metadata"
    publisher.ceremony.rotate((), publisher.offered(), Plan(), passphrase=None, now=publisher.now)
    publisher.ceremony.sign((), lambda _: b"")
    newest = [publisher.ceremony.newest(role).to_bytes() for role in ("root", "targets")]
    assert refused(newest, Conflict) == "trust_version_gap"


def test_a_lost_root_is_given_up_and_begun_anew(publisher, tmp_path):
    wanted = publisher.release()
    other = Folder(tmp_path / "other")
    other.init(publisher.offered(), Plan(), passphrase=None, now=publisher.now)
    with publisher.db.transaction() as session:
        service.import_documents(
            session, publisher.keys, other.documents(), begin_anew=True, now=publisher.now, actor="test"
        )
    assert CheckingDevice(tmp_path / "enrolled again", publisher).refuses(wanted) == ""
