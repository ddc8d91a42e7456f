"""A power cut at every write of an update: the next start carries on or goes back, never hangs."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts import artifact, example
from disk import watched
from poisoned import not_finite
from updating_device import Device

from fogline_client import durable
from fogline_client.inference.predictor import Predictor
from fogline_client.journal import Step
from fogline_shared.errors import Corrupt, Exhausted, Unavailable

GOOD, NEXT, BAD = artifact(), artifact(shift=1), artifact(shift=1, known_label=1)
POISONED = not_finite()


class PowerCut(BaseException):
    """Everything in memory is gone."""


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "device")


async def test_what_is_not_signed_any_more_is_neither_loaded_nor_taken_from_the_spare_slot(device: Device) -> None:
    first, second = device.offer(1, GOOD), device.offer(2, NEXT)
    await device.run(first)
    await device.run(second)
    device.unsigned = {first.artifact_digest}
    await device.run(replace(first, generation=3))
    assert device.last == (3, "REJECTED", "target_not_listed")
    assert device.serves() == second.artifact_digest
    device.unsigned = set()
    await device.run(replace(first, generation=4))
    assert device.last == (4, "SUCCEEDED", "")
    assert device.serves() == first.artifact_digest


@pytest.mark.parametrize(
    ("had", "content"), [(GOOD, NEXT), (GOOD, BAD), (None, NEXT)], ids=["good", "bad", "the first"]
)
async def test_power_cut_at_each_write_of_an_update(
    tmp_path: Path, monkeypatch, had: bytes | None, content: bytes
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what is flushed is told apart from what is not
    origin = Device(tmp_path / "origin")
    if had is not None:
        first = origin.offer(1, had)
        await origin.run(first)
    else:
        shutil.rmtree(origin.root / "slots")  # so that its first start is part of it
    wanted = origin.offer(2, content)
    with watched(origin.root) as disk:
        origin.boot()
        origin.finished = disk.say
        await origin.run(wanted)
    for number, left in enumerate(disk.left):
        left.put(tmp_path / str(number))
        device = Device(tmp_path / str(number))
        device.updater.resume()
        served = device.serves()
        assert served in {"" if had is None else first.artifact_digest, wanted.artifact_digest}, left
        if left.done:
            assert served == (wanted if content is NEXT else first).artifact_digest, left
        device.boot()
        await device.run(wanted)
        if not left.done:
            assert device.last[:2] == (2, "SUCCEEDED" if content is NEXT else "REJECTED"), left
        assert device.serves() == (wanted if content is NEXT else first).artifact_digest, left
        assert device.predictor.predict(example(0)).label == (1 if content is NEXT else 0)
    assert len(disk.left) > 20


async def test_rejected_artifact_is_not_tried_again_on_resync(device: Device) -> None:
    bad = device.offer(1, BAD)
    await device.run(bad)
    assert device.last == (1, "REJECTED", "known_answer_failed")
    device.boot()
    heard = len(device.told)
    device.updater.want(bad)
    await device.run(device.offer(2, GOOD))
    assert [told for told in device.told[heard:] if told[0] == 1] == []
    assert device.last == (2, "SUCCEEDED", "")


async def test_newer_desired_state_overtakes_a_download_and_a_probation(device: Device) -> None:
    good = device.offer(1, GOOD)
    await device.run(good)
    slow = device.offer(2, NEXT, probation_s=60)
    back = device.offer(3, GOOD)

    def when_in_probation() -> None:
        if (2, "PROBATION", "") in device.told:
            device.updater.want(back)

    await device.run(slow, until=3, whatever=when_in_probation)
    assert device.last == (3, "SUCCEEDED", "")
    assert device.serves() == good.artifact_digest


async def test_errors_in_probation_revert_at_once(device: Device) -> None:
    await device.run(device.offer(1, GOOD))
    device.told.clear()

    await device.run(device.offer(2, POISONED, probation_s=60), whatever=device.ask)
    assert device.last == (2, "REVERTED", "model_not_finite")
    assert device.predictor.predict(example(0)).label == 0


async def test_passing_faults_of_a_download_are_retried_and_told(device: Device) -> None:
    device.faults = [
        Unavailable("transfer_cut", "…"),
        Exhausted("disk_full", "…"),
        Corrupt("digest_mismatch", "…"),
    ]
    await device.run(device.offer(1, GOOD))
    codes = [code for _, state, code in device.told if state == "DOWNLOADING"]
    assert codes == ["", "transfer_cut", "", "disk_full", "", "digest_mismatch", ""]
    assert device.last == (1, "SUCCEEDED", "")


async def test_lasting_full_disk_rejects(device: Device) -> None:
    device.faults = [Exhausted("disk_full", "…")] * 10
    await device.run(device.offer(1, GOOD))
    assert device.last == (1, "REJECTED", "disk_full")


async def test_journal_that_cannot_be_written_stops_the_update_not_the_model(device: Device, monkeypatch) -> None:
    good = device.offer(1, GOOD)
    await device.run(good)

    def full(path: Path, *_args, **_options) -> None:
        raise Exhausted("disk_full", f"no space left to write {path}")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", full)
        await device.run(device.offer(2, NEXT))
    assert device.last == (2, "REJECTED", "disk_full")
    assert device.serves() == good.artifact_digest


async def test_damaged_active_slot_falls_back_to_the_other_and_asks_again(device: Device) -> None:
    first, second = device.offer(1, GOOD), device.offer(2, NEXT)
    await device.run(first)
    await device.run(second)
    active = device.updater._p.slots.active()
    device.updater._p.slots.path(active.slot).write_bytes(b"a dead flash cell")
    device.boot()
    device.updater.resume()
    assert device.serves() == first.artifact_digest
    await device.run(second)
    assert device.serves() == second.artifact_digest


@pytest.mark.parametrize("name", ["journal.json", "slots/active"])
async def test_unreadable_file_costs_a_download_not_the_device(device: Device, name: str) -> None:
    good = device.offer(1, GOOD)
    await device.run(good)
    (device.root / name).write_bytes(b'{"slot": ')
    device.boot()
    await device.run(good)
    assert device.serves() == good.artifact_digest


async def test_crash_loop_while_loading_is_ended(device: Device) -> None:
    good, bad = device.offer(1, GOOD), device.offer(2, NEXT)
    await device.run(good)

    def deadly(path: Path) -> object:
        if durable.digest_of(path) == bad.artifact_digest:
            raise PowerCut
        return Predictor.load(device.predictor, path)

    deaths = 0
    while device.last[1] != "REJECTED":
        device.boot()
        device.predictor.load = deadly
        try:
            await device.run(bad)
        except PowerCut:
            deaths += 1
            assert device.updater.journal.ledger.attempt.step is Step.VERIFYING
    assert (deaths, device.last) == (4, (2, "REJECTED", "crash_loop"))
    assert device.predictor.predict(example(0)).label == 0


async def test_device_without_a_model_before_goes_back_to_none(device: Device) -> None:
    await device.run(device.offer(1, POISONED, probation_s=60), whatever=device.ask)
    assert device.last == (1, "REVERTED", "model_not_finite")
    device.boot()
    device.updater.resume()
    assert device.serves() == ""
