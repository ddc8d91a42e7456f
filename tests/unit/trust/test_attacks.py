"""The attacks that TUF names, each refused with its code beside an honest twin that is accepted.

Each on a short list of artifacts, which ``release`` holds itself, and on one that is cut into bins.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from trusted import DAY, Attacker, CheckingDevice, Publisher
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import Metadata, MetaFile, TargetFile, Timestamp
from tuf.ngclient import FetcherInterface, Updater

from fogline_client.trust import floor as floors
from fogline_client.trust.floor import Floor
from fogline_client.trust.layout import Wanted
from fogline_server.trust import publish, service
from fogline_server.trust.keys import create, load
from fogline_server.trust.model import LISTED_WHOLE, Listed
from fogline_shared.errors import InvalidInput


@pytest.fixture(params=[0, LISTED_WHOLE + 1], ids=["whole", "bins"])
def publisher(sqlite_database, tmp_path, request):
    return Publisher(sqlite_database, tmp_path / "publisher", others=request.param)


@pytest.fixture
def device(publisher, tmp_path):
    return CheckingDevice(tmp_path / "device", publisher)


@pytest.fixture
def attacker(publisher):
    return Attacker(publisher)


class _Plain(FetcherInterface):
    def __init__(self, attacker: Attacker) -> None:
        self._attacker = attacker

    def _fetch(self, url):
        data = self._attacker.get(url.removeprefix("x/"))
        if data is None:
            raise DownloadHTTPError(url, 404)
        return iter([data])


def plain_tuf_accepts(wanted: Wanted, attacker: Attacker, folder: Path) -> bool:
    """Whether python-tuf, beginning from the pinned root with an empty cache, finds the artifact."""
    folder.mkdir()
    root = attacker.publisher.get("1.root.json")
    found = Updater(str(folder), "x/", fetcher=_Plain(attacker), bootstrap=root).get_targetinfo(wanted.path)
    return found is not None and found.hashes["sha256"] == wanted.digest


def test_an_artifact_that_was_released_is_accepted_and_an_older_one_too(publisher, device):
    older, newer = publisher.release(b"one"), publisher.release(b"two")
    assert device.refuses(newer) == ""
    assert device.refuses(older) == ""  # a rollback names a release that is still listed


def test_arbitrary_software_that_nobody_released(publisher, device):
    honest = publisher.release()
    evil = hashlib.sha256(b"evil").hexdigest()
    assert device.refuses(replace(honest, release_id="rel_evil")) == "target_not_listed"
    assert device.refuses(replace(honest, digest=evil)) == "target_mismatch"
    assert device.refuses(replace(honest, size=honest.size + 1)) == "target_mismatch"
    assert device.refuses(honest) == ""


def test_arbitrary_software_signed_by_a_key_of_ones_own(publisher, device, attacker, tmp_path):
    honest = publisher.release()
    own = create(tmp_path / "own.pem", passphrase=None)
    release = publisher.newest("release")
    release.signed.targets["rel_evil/x.onnx"] = TargetFile(4, {"sha256": "0" * 64}, "rel_evil/x.onnx")
    attacker.forge(release, own, version=release.signed.version)
    snapshot = publisher.newest("snapshot")
    snapshot.signed.meta["release.json"] = MetaFile(release.signed.version)
    attacker.forge(snapshot, own)
    timestamp = publisher.newest("timestamp")
    timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
    attacker.forge(timestamp, own)
    evil = replace(honest, release_id="rel_evil", variant="x", digest="0" * 64, size=4)
    assert device.refuses(evil, attacker.get) == "trust_signature_invalid"
    assert device.refuses(honest) == ""


def test_rollback_to_metadata_of_before(publisher, device, attacker):
    old = attacker.record()
    wanted = publisher.release()
    assert device.refuses(wanted) == ""
    attacker.instead = dict(old)
    assert device.refuses(wanted, attacker.get) == "trust_rolled_back"
    assert device.refuses(wanted) == ""


def test_freeze_at_metadata_of_before(publisher, device, attacker):
    """An attacker may hide news only until the timestamp ends; the coordinator signs the next one in good time."""
    wanted = publisher.release()
    attacker.instead = dict(attacker.record())
    for _ in range(3):
        assert publisher.pass_time(0.6 * DAY) == ["timestamp"]
    assert device.refuses(wanted, attacker.get) == "trust_expired"
    assert device.refuses(wanted) == ""


def test_mix_and_match_of_two_states(publisher, device, attacker):
    """Each document is honest, but they were never published together."""
    publisher.release(b"one")
    before = {role: publisher.newest(role) for role in publisher.listing()}
    wanted = publisher.release(b"two")
    role = publisher.lists(wanted)
    attacker.instead[f"{publisher.newest(role).signed.version}.{role}.json"] = before[role].to_bytes()
    assert device.refuses(wanted, attacker.get) == "trust_mismatch"
    assert device.refuses(wanted) == ""


def test_endless_data(publisher, device, attacker):
    wanted = publisher.release()
    attacker.instead["timestamp.json"] = (publisher.get("timestamp.json") or b"") + b" " * 20_000
    assert device.refuses(wanted, attacker.get) == "trust_too_long"
    assert device.refuses(wanted) == ""


def test_metadata_that_is_none_or_is_gone(publisher, device, attacker):
    wanted = publisher.release()
    attacker.instead["timestamp.json"] = b'{"signed": 1'
    assert device.refuses(wanted, attacker.get) == "trust_damaged"
    attacker.instead["timestamp.json"] = None
    assert device.refuses(wanted, attacker.get) == "trust_incomplete"
    assert device.refuses(wanted) == ""


def test_wiped_cache_and_then_a_rollback(publisher, device, attacker, tmp_path):
    """python-tuf alone begins anew and takes the replay."""
    first = publisher.release(b"one")
    old = attacker.record()
    wanted = publisher.release(b"two")
    assert device.refuses(wanted) == ""
    shutil.rmtree(device.trust.cache)
    attacker.instead = dict(old)
    assert plain_tuf_accepts(first, attacker, tmp_path / "plain")
    assert device.refuses(first, attacker.get) == "trust_rolled_back"
    assert device.refuses(wanted) == ""


def test_wiped_cache_and_then_a_root_whose_keys_were_revoked(publisher, device, attacker):
    wanted = publisher.release()
    old = attacker.record()
    publisher.rotate(online=True)
    assert device.refuses(wanted) == ""
    shutil.rmtree(device.trust.cache)
    attacker.instead = {**old, "2.root.json": None}
    assert device.refuses(wanted, attacker.get) == "trust_rolled_back"
    assert device.refuses(wanted) == ""


def test_clock_set_back_and_then_metadata_that_has_ended(publisher, device, attacker, tmp_path):
    """python-tuf alone believes the clock, and has nothing but its cache to know versions by."""
    wanted, start = publisher.release(), publisher.now
    attacker.instead = dict(attacker.record())
    for _ in range(6):
        publisher.pass_time(0.6 * DAY)
    assert device.refuses(wanted) == ""
    shutil.rmtree(device.trust.cache)
    assert plain_tuf_accepts(wanted, attacker, tmp_path / "plain")
    assert device.refuses(wanted, attacker.get, now=start) == "trust_expired"
    assert device.refuses(wanted, now=start) == ""  # honest metadata helps a device with a dead clock too


def test_the_time_alone_tells_of_a_clock_set_back(publisher, tmp_path, attacker):
    """Where no version was seen yet, or its keys were changed since."""
    wanted, new = publisher.release(), CheckingDevice(tmp_path / "new", publisher)
    floors.save(Floor(time=(publisher.now + 3 * DAY).timestamp()), new.trust.floor)
    assert new.refuses(wanted) == "trust_expired"
    for _ in range(5):
        publisher.pass_time(0.6 * DAY)
    assert new.refuses(wanted, now=publisher.now - 3 * DAY) == ""


def test_a_clock_that_ran_ahead_does_not_strand_the_device(publisher, device):
    wanted = publisher.release()
    assert device.refuses(wanted, now=publisher.now + 1000 * DAY) == "trust_expired"
    assert device.refuses(wanted) == ""


def test_one_stolen_root_key_is_below_the_threshold(publisher, device, attacker, tmp_path):
    wanted = publisher.release()
    thief = create(tmp_path / "thief.pem", passphrase=None)
    root = Metadata.from_bytes(publisher.get("1.root.json"))
    root.signed.version = 2
    root.signed.add_key(thief.public_key, "timestamp")
    root.signatures.clear()
    root.sign(load(publisher.folder / "keys" / "root-1.pem", lambda _: b""))
    attacker.instead["2.root.json"] = root.to_bytes()
    assert device.refuses(wanted, attacker.get) == "trust_signature_invalid"
    with publisher.db.transaction() as session, pytest.raises(InvalidInput, match="lacks 1 signature"):
        service.import_documents(session, publisher.keys, [root.to_bytes()], now=publisher.now, actor="thief")
    root.sign(load(publisher.folder / "keys" / "root-2.pem", lambda _: b""), append=True)
    attacker.instead["2.root.json"] = root.to_bytes()
    assert device.refuses(wanted, attacker.get) == ""  # two of three may


def test_fast_forward_by_stolen_online_keys_and_recovery(publisher, device, attacker):
    """A thief signs the largest versions there are; new online keys make them void, and the honest ones new."""
    wanted = publisher.release()
    snapshot, timestamp = publisher.newest("snapshot"), publisher.newest("timestamp")
    attacker.forge(snapshot, publisher.stolen("snapshot"), version=2**31)
    assert isinstance(timestamp.signed, Timestamp)
    timestamp.signed.snapshot_meta = MetaFile(2**31)
    attacker.forge(timestamp, publisher.stolen("timestamp"), version=2**31)
    assert device.refuses(wanted, attacker.get) == ""
    assert device.refuses(wanted) == "trust_rolled_back"  # the device has seen 2**31
    publisher.rotate(online=True)
    assert device.refuses(wanted) == ""


def test_a_stolen_release_key_lists_malware_until_it_is_rotated(publisher, device, attacker):
    honest = publisher.release()
    evil = replace(honest, release_id="rel_evil", digest="0" * 64, size=4)
    with publisher.db.transaction() as session:
        listed = Listed(release_id="rel_evil", variant=evil.variant, digest=evil.digest, size=4, recipe="toy")
        publish.publish(session, publisher.keys, [listed], now=publisher.now)
    assert device.refuses(evil) == ""  # what a release key may do: docs/trust.md says so
    publisher.rotate(online=True)
    assert device.refuses(evil) == "target_not_listed"
    assert device.refuses(honest) == ""


def test_old_online_keys_sign_nothing_after_the_rotation(publisher, device, attacker):
    wanted = publisher.release()
    thief = publisher.stolen("timestamp")
    publisher.rotate(online=True)
    timestamp = publisher.newest("timestamp")
    attacker.forge(timestamp, thief, version=timestamp.signed.version + 1)
    assert device.refuses(wanted, attacker.get) == "trust_signature_invalid"
    assert device.refuses(wanted) == ""


def test_each_root_key_is_replaced_and_a_device_that_slept_through_follows(publisher, device):
    wanted = publisher.release()
    for name in ("root-1", "root-2", "root-3", "targets-1"):
        publisher.rotate(replaced=(name,))
    publisher.pass_time(timedelta(days=20))
    assert device.check(wanted).root == 5


def test_a_root_that_was_seen_stays_when_the_rest_is_withheld(publisher, device, attacker):
    """Revoked keys stay revoked, though the attacker lets nothing past the new root."""
    wanted = publisher.release()
    old = attacker.record()
    publisher.rotate(online=True)
    attacker.instead = {"timestamp.json": None}
    assert device.refuses(wanted, attacker.get) == "trust_incomplete"
    attacker.instead = {**old, "2.root.json": None}
    assert device.refuses(wanted, attacker.get) == "trust_signature_invalid"
    assert device.refuses(wanted) == ""
