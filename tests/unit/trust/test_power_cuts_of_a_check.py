"""A power cut before and after each durable write of a check: the next check passes, and no floor is ever lower."""

from __future__ import annotations

import shutil
from itertools import count

import pytest
from trusted import CheckingDevice, Publisher

from fogline_client import durable
from fogline_client.trust import floor as floors
from fogline_server.trust.model import LISTED_WHOLE


class PowerCut(BaseException):
    """Everything in memory is gone."""


def test_each_write_may_be_the_last(sqlite_database, tmp_path, monkeypatch):
    publisher = Publisher(sqlite_database, tmp_path / "publisher", others=LISTED_WHOLE + 1)
    device, moments = CheckingDevice(tmp_path / "device", publisher), count(1)
    lowest = device.check(publisher.release(b"one"))
    publisher.rotate(online=True)
    wanted = publisher.release(b"two")
    for cut_at in moments:
        shutil.copytree(tmp_path / "device", tmp_path / f"device-{cut_at}")
        each = CheckingDevice(tmp_path / f"device-{cut_at}", publisher, pinned=True)
        with monkeypatch.context() as patched:
            patched.setattr(durable, "write", cutting(durable.write, cut_at))
            try:
                each.check(wanted)
                break
            except PowerCut:
                pass
        seen = floors.load(each.trust.floor)
        assert (seen.root, seen.time) >= (lowest.root, lowest.time)
        assert each.refuses(wanted) == ""
    assert cut_at > 10


def cutting(write, cut_at: int):
    """``durable.write`` with a power cut before or after one of its calls."""
    moments = count(1)

    def instead(path, data, **how):
        if next(moments) == cut_at:
            raise PowerCut
        write(path, data, **how)
        if next(moments) == cut_at:
            raise PowerCut

    return instead


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
