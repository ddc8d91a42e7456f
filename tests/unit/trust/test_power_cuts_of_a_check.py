"""A power cut at every write of a check: the next check passes, and no floor is ever lower."""

from __future__ import annotations

import os

import pytest
from disk import watched
from trusted import CheckingDevice, Publisher

from fogline_client.trust import floor as floors
from fogline_client.trust.check import begin
from fogline_client.trust.layout import TrustDir
from fogline_server.trust.model import LISTED_WHOLE


def test_each_write_may_be_the_last(sqlite_database, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what is flushed is told apart from what is not
    publisher = Publisher(sqlite_database, tmp_path / "publisher", others=LISTED_WHOLE + 1)
    device = CheckingDevice(tmp_path / "device", publisher)
    before = device.check(publisher.release(b"one"))
    publisher.rotate(online=True)
    wanted = publisher.release(b"two")
    with watched(device.trust.path, forgotten=f"{device.trust.stage.name}/") as disk:
        after = device.check(wanted)
        disk.say()
    for number, left in enumerate(disk.left):
        each = CheckingDevice(left.put(tmp_path / str(number)), publisher, pinned=True)
        seen, lowest = floors.load(each.trust.floor), after if left.done else before
        assert (seen.root, seen.time) >= (lowest.root, lowest.time), left
        assert seen.roles.keys() >= before.roles.keys(), left
        assert each.refuses(wanted) == "", left
    assert len(disk.left) > 20


def test_a_root_is_pinned_whole_or_not_at_all(sqlite_database, tmp_path):
    root = Publisher(sqlite_database, tmp_path / "publisher").get("root.json")
    (tmp_path / "state").mkdir()
    with watched(tmp_path / "state") as disk:
        begin(TrustDir(path=tmp_path / "state" / "trust"), root)
        disk.say()
    for number, left in enumerate(disk.left):
        pinned = TrustDir(path=left.put(tmp_path / str(number)) / "trust").pinned
        assert (pinned.read_bytes() == root) if pinned.exists() else not left.done, left


def test_what_a_power_cut_left_half_written_in_the_cache_is_not_believed(sqlite_database, tmp_path):
    publisher = Publisher(sqlite_database, tmp_path / "publisher", others=LISTED_WHOLE + 1)
    device, wanted = CheckingDevice(tmp_path / "device", publisher), publisher.release()
    device.check(wanted)
    for path in sorted(device.trust.cache.rglob("*.json")):
        whole = path.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2], whole.replace(b"a", b"b")):
            path.write_bytes(damaged)
            assert device.refuses(wanted) == "", path
            assert path.read_bytes() == whole


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"signed": {}}'])
def test_a_damaged_pinned_root_refuses_everything_new(sqlite_database, tmp_path, damage):
    publisher = Publisher(sqlite_database, tmp_path / "publisher")
    device, wanted = CheckingDevice(tmp_path / "device", publisher), publisher.release()
    device.trust.pinned.write_bytes(damage)
    assert device.refuses(wanted) == "bad_trust_root"
