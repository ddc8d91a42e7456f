"""``docs/trust.md``, each command of it, against a served coordinator and real devices' checks."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from dockerfiles import ROOT
from trusted import CheckingDevice, Publisher

from fogline_client.trust.layout import Wanted
from fogline_server.cli import main
from fogline_server.db.base import utc_now
from fogline_server.trust import publish, store
from fogline_server.trust.ceremony import Folder, Plan
from fogline_server.trust.keys import OnlineKeys, create
from fogline_server.trust.model import Listed

GUIDE = (ROOT / "docs" / "trust.md").read_text()
CEREMONY = (
    "Set up",
    "Sign again within the year",
    "Replace an offline key",
    "Recover from stolen online keys",
    "Recover from stolen root keys",
)
PASSPHRASE = "correct horse battery staple"


def commands(section: str) -> list[str]:
    text = GUIDE.split(f"\n## {section}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


class Coordinator(Publisher):
    """The served coordinator's trust, seen from its database."""

    def __init__(self, plant) -> None:
        self.db, self.keys = plant.db, plant.app.state.services.online_keys
        self.now = utc_now()


@pytest.fixture
def follow(sqlite_plant, monkeypatch, capsys, tmp_path) -> Callable[[str], str]:
    """Run a section's commands in one folder; what they printed, with the errors."""
    folder = tmp_path / "guide"
    (folder / ".fogline").mkdir(parents=True)
    (folder / ".fogline" / "keys").symlink_to(sqlite_plant.state_dir / "keys")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("FOGLINE_URL", sqlite_plant.url)
    monkeypatch.setenv("FOGLINE_API_KEY", sqlite_plant.keys["admin"])
    monkeypatch.setenv("FOGLINE_TRUST_PASSPHRASE", PASSPHRASE)

    def run(section: str) -> str:
        said = ""
        for line in commands(section):
            command, _, target = line.partition(" > ")
            words = shlex.split(command)
            if words[0] != "fogline":
                subprocess.run(words, check=True)
                continue
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as exited:
                main.run()
            captured = capsys.readouterr()
            assert not exited.value.code, f"{line}: {captured.err}"
            if target:
                Path(target).write_text(captured.out)
            said += captured.out + captured.err
        return said

    return run


def test_a_ceremony_from_set_up_to_the_end_of_its_keys(follow, sqlite_plant, tmp_path):
    with sqlite_plant.db.transaction() as session:
        store.forget_all(session)  # as without throwaway keys
    coordinator = Coordinator(sqlite_plant)
    assert "DEVELOPMENT" not in follow("Set up")
    assert "ENCRYPTED" in Path("ceremony/keys/root-1.pem").read_text()
    device, wanted = CheckingDevice(tmp_path / "device", coordinator), coordinator.release()
    assert device.check(wanted).root == 1
    follow("Sign again within the year")
    assert device.check(wanted).root == 2
    follow("Replace an offline key")
    assert device.check(wanted).root == 3
    evil = Listed(release_id="rel_evil", variant="x", digest="0" * 64, size=1, recipe="toy")
    with coordinator.db.transaction() as session:
        publish.publish(session, coordinator.keys, [evil], now=coordinator.now)
    follow("Recover from stolen online keys")
    assert device.check(wanted).root == 4
    assert device.refuses(Wanted(release_id="rel_evil", variant="x", digest="0" * 64, size=1)) == "target_not_listed"
    follow("Recover from stolen root keys")
    assert device.refuses(wanted) == "trust_signature_invalid"
    assert CheckingDevice(tmp_path / "enrolled again", coordinator).check(wanted).root == 1


def test_throwaway_keys_give_way_and_no_device_enrols_again(follow, sqlite_plant, tmp_path):
    coordinator = Coordinator(sqlite_plant)
    device, wanted = CheckingDevice(tmp_path / "device", coordinator), coordinator.release()
    assert device.check(wanted).root == 1
    with sqlite_plant.client() as client:
        assert client.get("/v1/trust").json()["development"] is True
        said = follow("From throwaway keys to real ones")
        assert client.get("/v1/trust").json()["development"] is False
    assert "2 of root-4, root-5, root-6" in said
    assert device.check(wanted).root == 2


def test_show_says_that_the_keys_are_throwaway(follow, sqlite_plant, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fogline", "trust", "show"])
    with pytest.raises(SystemExit):
        main.run()
    assert "DEVELOPMENT" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("init there --coordinator none.json", "invalid_json"),
        ("init there --coordinator empty.json", "bad_online_keys"),
        ("init there --coordinator online.json --threshold 4", "bad_ceremony"),
        ("init done --coordinator online.json", "trust_exists"),
        ("show nothing", "no_ceremony"),
        ("sign done --key stranger.pem", "key_not_entitled"),
        ("sign done --key online.json", "key_damaged"),
        ("rotate done --replace root-9", "key_unknown"),
        ("rotate unsigned", "version_unsigned"),
        ("import online.json", "bad_trust_metadata"),
    ],
)
def test_each_mistake_has_its_code_and_leaves_the_files_alone(tmp_path, monkeypatch, capsys, words, code):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FOGLINE_TRUST_PASSPHRASE", PASSPHRASE)
    offered = OnlineKeys(Path("online")).offered()
    online = {role: signer.public_key for role, signer in offered.items()}
    shown = {role: {"keyid": key.keyid, "key": key.to_dict()} for role, key in online.items()}
    Path("online.json").write_text(json.dumps({"online_keys": shown}))
    Path("empty.json").write_text("{}")
    create(Path("stranger.pem"), passphrase=None)
    for name in ("done", "unsigned"):
        Folder(Path(name)).init(online, Plan(), passphrase=None, now=utc_now())
    Folder(Path("unsigned")).rotate((), None, Plan(), passphrase=None, now=utc_now())
    before = {path: path.read_bytes() for path in Path().rglob("*.*") if path.is_file()}
    monkeypatch.setattr(sys, "argv", ["fogline", "trust", *words.split()])
    with pytest.raises(SystemExit) as exited:
        main.run()
    assert exited.value.code
    assert code in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path().rglob("*.*") if path.is_file()} == before
