"""A listing that outgrows ``release`` is cut into bins: what devices ask for then, what they refuse, and how they get there."""

from __future__ import annotations

import shutil

import pytest
from trusted import DAY, Attacker, CheckingDevice, Publisher
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import DelegatedRole, Delegations, MetaFile, TargetFile
from tuf.ngclient import FetcherInterface, Updater

from fogline_client.trust import floor as floors
from fogline_server.trust import catalogue, store
from fogline_server.trust.model import LISTED_WHOLE


@pytest.fixture
def publisher(sqlite_database, tmp_path):
    return Publisher(sqlite_database, tmp_path / "publisher", others=LISTED_WHOLE + 1)


@pytest.fixture
def device(publisher, tmp_path):
    return CheckingDevice(tmp_path / "device", publisher)


@pytest.fixture
def uncut(sqlite_database, tmp_path, monkeypatch):
    """What a coordinator of a version without bins has signed: however long, one list; and an artifact that is in it."""
    publisher = Publisher(sqlite_database, tmp_path / "uncut")
    with monkeypatch.context() as patched:
        patched.setattr(catalogue, "LISTED_WHOLE", 10**9)
        publisher.list_others(LISTED_WHOLE)
        old = publisher.release(b"of before")
    assert len(publisher.newest("release").signed.targets) == LISTED_WHOLE + 1
    return publisher, old


def asked(device: CheckingDevice, wanted) -> tuple[list[str], int]:
    """The roles that a check asks for, and their bytes."""
    names, size = [], 0

    def fetch(name):
        nonlocal size
        data = device.publisher.get(name)
        names.append(name.removesuffix(".json").rpartition(".")[2])
        size += len(data or b"")
        return data

    device.check(wanted, fetch)
    return names, size


def test_an_unchanged_check_asks_for_the_timestamp_alone(publisher, device):
    wanted = publisher.release()
    assert asked(device, wanted)[0] == ["root", "timestamp", "snapshot", "targets", "release", publisher.lists(wanted)]
    names, size = asked(device, wanted)
    assert names == ["root", "timestamp"]
    assert size <= 1000
    other = publisher.release(b"another")
    while publisher.lists(other) == publisher.lists(wanted):
        other = publisher.release(b"another")
    assert asked(device, wanted)[0] == ["root", "timestamp", "snapshot"]


def test_a_bin_of_before_under_a_snapshot_by_stolen_keys_after_the_cache_was_wiped(publisher, device):
    """Whoever may sign snapshots may mix versions; not for a device that has seen the newer one."""
    wanted = publisher.release(b"one")
    role, before = publisher.lists(wanted), publisher.newest(publisher.lists(wanted))
    publisher.list_again(wanted)
    assert publisher.newest(role).signed.version > before.signed.version
    assert device.refuses(wanted) == ""
    shutil.rmtree(device.trust.cache)
    attacker = mixed(publisher, {role: MetaFile(before.signed.version)})
    assert device.refuses(wanted, attacker.get) == "trust_rolled_back"
    assert CheckingDevice(device.trust.path.with_name("new"), publisher).refuses(wanted, attacker.get) == ""
    assert device.refuses(wanted) == ""


def mixed(publisher: Publisher, meta: dict[str, MetaFile]) -> Attacker:
    """Serves a snapshot that names other versions, and its timestamp, by the stolen keys of both."""
    attacker, snapshot, timestamp = Attacker(publisher), publisher.newest("snapshot"), publisher.newest("timestamp")
    snapshot.signed.meta |= {f"{role}.json": each for role, each in meta.items()}
    attacker.forge(snapshot, publisher.stolen("snapshot"), version=snapshot.signed.version + 1)
    timestamp.signed.snapshot_meta = MetaFile(snapshot.signed.version)
    attacker.forge(timestamp, publisher.stolen("timestamp"), version=timestamp.signed.version + 1)
    return attacker


@pytest.mark.parametrize("form", ["list and bins", "roles of other names", "bins of bins"])
def test_a_stolen_release_key_makes_no_other_tree(publisher, device, form):
    """What the floor would not judge is not followed, though each document has valid signatures."""
    wanted = publisher.release()
    evil = TargetFile(wanted.size, {"sha256": wanted.digest}, wanted.path)
    key, inner = publisher.stolen("release"), publisher.lists(wanted)
    delegations = Delegations(
        {key.public_key.keyid: key.public_key},
        {"deep": DelegatedRole("deep", [key.public_key.keyid], 1, terminating=False, paths=["*/*"])},
    )
    changed, deep = publisher.newest(inner if form == "bins of bins" else "release"), publisher.newest(inner)
    if form == "list and bins":
        changed.signed.targets = {wanted.path: evil}
    else:
        changed.signed.targets, changed.signed.delegations = {}, delegations
    role = inner if form == "bins of bins" else "release"
    attacker = mixed(publisher, {role: MetaFile(changed.signed.version + 1), "deep": MetaFile(deep.signed.version)})
    changed.signed.version += 1
    for name, document in ((role, changed), ("deep", deep)):
        document.sign(key)
        attacker.instead[f"{document.signed.version}.{name}.json"] = document.to_bytes()
    refused = "target_not_listed" if form == "bins of bins" else "trust_damaged"
    assert device.refuses(wanted, attacker.get) == refused
    assert CheckingDevice(device.trust.path.with_name("new"), publisher).refuses(wanted) == ""


@pytest.mark.parametrize("cause", ["next release", "renewal"])
def test_what_was_signed_by_a_version_without_bins_is_cut_at_the_next_signature(uncut, tmp_path, cause):
    publisher, old = uncut
    device = CheckingDevice(tmp_path / "device", publisher)
    assert device.refuses(old) == ""
    before = floors.load(device.trust.floor)
    with publisher.db.read() as session:
        held = catalogue.listed(session)
    added = {publisher.release().path} if cause == "next release" else set()
    while cause == "renewal" and "release" not in publisher.pass_time(0.5 * DAY):
        pass
    with publisher.db.read() as session:
        assert catalogue.listed(session).keys() == held.keys() | added
    assert publisher.newest("release").signed.targets == {}
    assert device.refuses(old) == ""
    after = floors.load(device.trust.floor)
    assert after.roles.keys() - before.roles.keys() == {publisher.lists(old)}
    assert after.roles["release"].version > before.roles["release"].version


class _Plain(FetcherInterface):
    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def _fetch(self, url):
        data = self._publisher.get(url.removeprefix("x/"))
        if data is None:
            raise DownloadHTTPError(url, 404)
        return iter([data])


def test_an_agent_of_a_version_that_knows_no_bins_finds_what_is_in_them(uncut, tmp_path):
    """It is python-tuf that follows delegations; such an agent keeps no bin, and asks for it at each check."""
    publisher, old = uncut
    cache = tmp_path / "cache"
    cache.mkdir()

    def finds(wanted) -> bool:
        root = publisher.get("1.root.json")
        found = Updater(str(cache), "x/", fetcher=_Plain(publisher), bootstrap=root).get_targetinfo(wanted.path)
        for path in cache.glob("release-*.json"):
            path.unlink()
        return found is not None and found.hashes["sha256"] == wanted.digest

    assert finds(old)
    wanted = publisher.release()
    assert publisher.lists(wanted) != "release"
    assert [finds(each) for each in (wanted, wanted, old)] == [True, True, True]


def test_an_earlier_coordinator_that_signed_after_the_cut_is_refused_until_this_one_signs_again(publisher, device):
    wanted = publisher.release()
    assert device.refuses(wanted) == ""
    signed_without_bins(publisher, "rel_between/x.onnx")
    assert device.refuses(wanted) == "trust_damaged"
    publisher.release(b"another")
    assert device.refuses(wanted) == ""
    assert publisher.newest("release").signed.targets == {}
    with publisher.db.read() as session:
        assert "rel_between/x.onnx" in catalogue.listed(session)


def signed_without_bins(publisher: Publisher, path: str) -> None:
    """What such a coordinator makes of what is there: it adds to ``release``, and names no bin."""
    release, snapshot, timestamp = (publisher.newest(role) for role in ("release", "snapshot", "timestamp"))
    release.signed.targets[path] = TargetFile(1, {"sha256": "0" * 64}, path)
    snapshot.signed.meta = {name: snapshot.signed.meta[name] for name in ("release.json", "targets.json")}
    below = None
    with publisher.db.transaction() as session:
        for role, document in (("release", release), ("snapshot", snapshot), ("timestamp", timestamp)):
            document.signed.version += 1
            if role == "snapshot":
                document.signed.meta["release.json"] = below
            elif role == "timestamp":
                document.signed.snapshot_meta = below
            document.sign(publisher.stolen(role))
            store.add(session, document, role, document.to_bytes(), now=publisher.now)
            below = MetaFile(document.signed.version)


def test_once_cut_it_stays_so_when_few_are_left(publisher, device):
    """TUF lets no role disappear from a snapshot: devices would refuse it."""
    wanted = publisher.release()
    assert device.refuses(wanted) == ""
    publisher.rotate(replaced=("root-1",))  # lists anew what the registry says, under the same online keys
    assert len(publisher.newest(publisher.lists(wanted)).signed.targets) == 1
    assert device.refuses(wanted) == ""


def test_bins_are_signed_again_before_they_end(publisher, device):
    wanted = publisher.release()
    assert device.refuses(wanted) == ""
    renewed = {role for _ in range(70) for role in publisher.pass_time(0.5 * DAY)}
    assert renewed == {"release", "snapshot", "timestamp"}
    soonest = min(publisher.newest(role).signed.expires for role in publisher.listing())
    assert soonest - publisher.now > 14 * DAY
    assert device.refuses(wanted) == ""
