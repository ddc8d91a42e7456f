"""What the doctor says of a device that is as it should be, and of each way in which it is not."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from artifacts import artifact, example
from endless_models import endless, hungry
from examined_device import Device
from lone_device import DAY, NOW
from typer.testing import CliRunner

from fogline_client import durable
from fogline_client.cli import app
from fogline_client.doctor import examination, packages
from fogline_client.doctor.examination import examine
from fogline_client.doctor.findings import Finding
from fogline_client.doctor.patient import Patient
from fogline_client.inference.predictor import Predictor
from fogline_client.journal import Attempt, Journal, Step, Watch
from fogline_client.slots import Pointer
from fogline_client.telemetry.spool import CAPACITY, Spool
from fogline_client.trust import floor
from fogline_client.trust.floor import Floor
from fogline_shared.protocol import DesiredState, Report, TaskReply

USUAL = {"no_model": False, "agent_not_running": False}


def test_device_that_is_as_it_should_be(device: Device, agent: None) -> None:
    device.install(artifact())
    before = {path: path.read_bytes() for path in device.root.rglob("*") if path.is_file()}
    assert device.doctor() == (0, {})
    text = CliRunner().invoke(app, ["doctor", "--offline", "--state-dir", str(device.root)])
    assert (text.exit_code, text.stdout) == (0, "all is well\n")
    after = {path: path.read_bytes() for path in device.root.rglob("*") if path.is_file()}
    assert {path: data for path, data in after.items() if "spool.db-" not in path.name} == before


def test_device_that_waits_for_its_first_model(device: Device) -> None:
    assert device.doctor() == (0, USUAL)


def garble(path: str) -> Callable[[Device], object]:
    return lambda device: (device.root / path).write_bytes(b'{"half a')


def damage_spool(device: Device) -> None:
    size = device.state.spool.stat().st_size
    with device.state.spool.open("r+b") as file:
        file.seek(size // 2)
        file.write(os.urandom(size // 2))


def keep_damaged_reply(device: Device) -> None:
    reply = TaskReply(task_id="t", digest="0" * 64, size=3, records_json="{}", error_code="", error_message="")
    durable.write_json(device.state.outbox / "one.json", asdict(reply))


def drop_windows(device: Device) -> None:
    with sqlite3.connect(device.state.spool) as db:
        db.execute("INSERT OR REPLACE INTO counters VALUES ('dropped', 7)")
    db.close()


def fill_spool(device: Device) -> None:
    with sqlite3.connect(device.state.spool) as db:
        db.executemany("INSERT INTO frames VALUES (?, 'Report', '{}')", ((n,) for n in range(CAPACITY // 2 + 1)))
    db.close()


def bar_spool(device: Device) -> None:
    device.state.spool.unlink()
    device.state.spool.mkdir()


def damage_cached_root(device: Device) -> None:
    history = device.state.trust.cache / "root_history"
    history.mkdir(parents=True)
    (history / "2.root.json").write_text("{}")


def leave_an_update(device: Device) -> None:
    desired = DesiredState(generation=4, artifact_digest="a" * 64, artifact_size=1, probation_s=1.0)
    Journal(device.state.journal).begin(Attempt(desired=desired, step=Step.PROBATION, starts=2))


def lose_the_root(device: Device) -> None:
    device.state.trust.pinned.unlink()
    floor.save(Floor(time=1.0, root=1), device.state.trust.floor)


def die(device: Device) -> None:
    durable.write_json(device.state.status, {"pid": 4711, "online": True})


SERIOUS: dict[str, Callable[[Device], object]] = {
    "not_enrolled": lambda device: device.state.identity.unlink(),
    "bad_identity": garble("identity.json"),
    "identity_exposed": lambda device: device.state.identity.chmod(0o644),
    "not_configured": lambda device: device.state.config.unlink(),
    "bad_config": garble("agent.json"),
    "bad_option": lambda device: device.state.config.write_text('{"name": "watch-1", "metered": "no"}'),
    "certificate_expired": lambda device: device.enroll(since=NOW - 40 * DAY),
    "certificate_not_yet_valid": lambda device: device.enroll(since=NOW + DAY),
    "bad_journal": garble("journal.json"),
    "spool_damaged": damage_spool,
    "trust_root_lost": lose_the_root,
    "bad_trust_root": garble("trust/root.json"),
    "bad_trust_floor": garble("trust/floor.json"),
    "bad_pointer": garble("slots/active"),
    "agent_died": die,
    "unknown_engine": lambda device: device.configure(engine="abacus"),
    "provider_unavailable": lambda device: device.configure(
        engine="onnxruntime_providers", engine_options={"providers": "TensorrtExecutionProvider"}
    ),
    "unknown_recipe": lambda device: device.configure(recipe="nobody-has-it"),
    "no_state": lambda device: shutil.rmtree(device.root),
}


def watch_a_model(device: Device) -> None:
    desired = DesiredState(generation=4, artifact_digest="a" * 64, artifact_size=1, probation_s=1.0)
    Journal(device.state.journal).watch(Watch(desired=desired, previous=Pointer(slot="A", digest="b" * 64), starts=3))


def go_back(device: Device) -> None:
    spool = Spool(device.state.spool, now=NOW.timestamp())
    told = {"assignment_id": "asg_2", "attempt": 1, "seq": 0, "boot_id": "b", "generation": 4}
    spool.put(Report(**told, state="REVERTED", code="model_hangs", message="a call did not return"))
    spool.close()


NOTES: dict[str, Callable[[Device], object]] = {
    "certificate_ends_soon": lambda device: device.enroll(since=NOW - 25 * DAY),
    "clock_behind": lambda device: floor.save(Floor(time=(NOW + DAY).timestamp(), root=1), device.state.trust.floor),
    "spool_was_damaged": lambda device: (device.root / "spool.db.damaged").touch(),
    "windows_dropped": drop_windows,
    "spool_filling": fill_spool,
    "spool_not_readable": bar_spool,
    "trust_cache_damaged": damage_cached_root,
    "update_unfinished": leave_an_update,
    "crash_loop": watch_a_model,
    "model_refused": go_back,
    "bad_reply": keep_damaged_reply,
    "replies_waiting": keep_damaged_reply,
    "trust_not_set_up": lambda device: device.state.trust.pinned.unlink(),
    "trust_root_expired": lambda device: device.trust(until=NOW - DAY),
    "coordinator_unreachable": lambda device: device.enroll(target="127.0.0.1:1"),
    "coordinator_name_unknown": lambda device: device.enroll(target="coordinator.invalid:1"),
}


@pytest.mark.parametrize("code", SERIOUS)
def test_what_keeps_a_device_from_its_work(device: Device, code: str) -> None:
    SERIOUS[code](device)
    status, found = device.doctor()
    assert status == 1
    assert found[code], found


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"nobody": "knows this"}'])
def test_settings_that_are_none(device: Device, text: str) -> None:
    device.state.config.write_text(text)
    assert device.doctor() == (1, USUAL | {"bad_config": True})


@pytest.mark.parametrize("code", NOTES)
def test_what_is_only_worth_knowing(device: Device, code: str) -> None:
    NOTES[code](device)
    status, found = device.doctor("--timeout", "2") if code.startswith("coordinator") else device.doctor()
    assert (status, found.get(code)) == (0, False), found


def test_certificate_with_which_a_device_may_still_come_back(device: Device) -> None:
    device.enroll(since=NOW - 40 * DAY, returns="127.0.0.1:2")
    assert device.doctor() == (0, USUAL | {"certificate_expired": False})
    device.enroll(since=NOW - 400 * DAY, returns="127.0.0.1:2")
    assert device.doctor() == (1, USUAL | {"certificate_expired": True})


def test_what_a_machine_lacks(device: Device) -> None:
    usual = set(USUAL)
    assert device.codes() == usual
    assert device.codes(free_bytes=1 << 20) == usual | {"disk_full"}
    assert device.codes(free_files=3) == usual | {"disk_full"}
    assert device.codes(free_bytes=20 << 20) == usual | {"disk_low"}
    assert device.codes(read_only=True) == usual | {"disk_read_only"}
    assert device.codes(free_memory=9 << 20) == usual | {"memory_low"}
    assert device.codes(arch="armv7l", bits=32) == usual | {"machine_not_supported"}
    assert device.codes(now=3600.0) >= {"clock_not_set", "certificate_not_yet_valid"}
    assert device.codes(now=(NOW - timedelta(hours=1)).timestamp()) >= {"clock_behind", "certificate_not_yet_valid"}
    assert device.codes(uid=4711) == usual | {"not_the_owner"}


@pytest.mark.parametrize(
    ("code", "damage"),
    [
        ("slot_missing", lambda path: path.unlink()),
        ("slot_damaged", lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?")),
    ],
)
def test_slot_that_is_not_what_the_pointer_names(device: Device, code: str, damage: Callable[[Path], object]) -> None:
    damage(device.install(artifact()))
    status, found = device.doctor()
    assert (status, found[code]) == (1, True)


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("known_answer_failed", lambda: artifact(known_label=3)),
        ("not_a_model", lambda: b"no graph"),
        ("measuring_out_of_memory", hungry),
    ],
)
def test_model_that_should_not_serve(device: Device, code: str, content: Callable[[], bytes]) -> None:
    device.install(content())
    status, found = device.doctor()
    assert (status, found.get(code)) == (1, True), found


def test_model_that_computes_for_ever(device: Device) -> None:
    device.install(endless())
    found = examine(replace(device.patient(), model_cpu_s=1))
    assert "model_hangs" in {finding.code for finding in found if finding.serious}


def test_model_whose_process_is_killed(device: Device) -> None:
    device.install(endless())

    def kill() -> None:
        while True:
            for child in psutil.Process().children():
                with suppress(psutil.Error):
                    if "fogline_client.measuring.child" in child.cmdline():
                        return child.kill()  # as the kernel does when memory runs out
            time.sleep(0.01)

    with ThreadPoolExecutor() as pool:
        killing = pool.submit(kill)
        found = examine(device.patient())
        killing.result()
    assert "model_kills" in {finding.code for finding in found if finding.serious}


def test_file_of_another_user(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.lstat

    def lstat(path: Path) -> os.stat_result:
        found = real(path)
        return os.stat_result([*found[:4], found.st_uid + 1, *found[5:]]) if path == device.state.journal else found

    monkeypatch.setattr(Path, "lstat", lstat)
    assert device.doctor() == (1, USUAL | {"foreign_owner": True})


def test_recipe_without_what_trains_it(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.configure(recipe="smartwatch")
    assert device.doctor() == (0, USUAL)
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: name != "torch" or None)
    assert device.doctor() == (1, USUAL | {"training_not_installed": True})


def test_an_install_that_lacks_the_engine(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    device.install(artifact())
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    assert device.doctor() == (1, {"agent_not_running": False, "package_missing": True})


def test_an_install_that_lacks_more(device: Device) -> None:
    code = "import sys; sys.modules['cryptography'] = None; from fogline_client.cli import run; run()"
    command = [sys.executable, "-c", code, "doctor", "--state-dir", str(device.root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("fogline-agent: package_missing: cryptography cannot be imported")


def test_a_fault_of_a_check_is_a_finding(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(patient: Patient) -> Iterator[Finding]:
        yield Finding("seen_before", "", "", "", serious=False)
        raise KeyError("x")

    monkeypatch.setattr(examination, "CHECKS", (faulty, *examination.CHECKS))
    assert device.codes() == {"seen_before", "check_failed", *USUAL}


def test_a_running_agent_that_does_not_answer_or_is_offline(device: Device, agent: None) -> None:
    durable.write_json(device.state.status, {"pid": 1, "online": False, "url": "http://127.0.0.1:1", "socket": ""})
    status, found = device.doctor()
    assert (status, found["not_serving"], found["offline"]) == (1, True, False)
    assert "agent_died" not in found


def test_a_check_that_fails_does_not_keep_the_others(device: Device) -> None:
    device.state.journal.write_text('{"settled": 1, "attempt": {"desired": null}}')
    shutil.rmtree(device.state.slots)
    (device.state.slots).mkdir()
    (device.state.slots / "active").mkdir()
    status, found = device.doctor()
    assert status == 1
    assert {"not_readable", "bad_journal", "agent_not_running"} <= found.keys()


def test_the_device_that_was_examined_predicts(device: Device) -> None:
    device.install(artifact())
    device.doctor()
    with Predictor.open(device.root) as predictor:
        assert predictor.predict(example(1)).label == 1
