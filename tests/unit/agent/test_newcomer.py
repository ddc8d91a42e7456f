"""A model that fails after its probation, or kills its process: the device goes back by itself, and says so, once."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts import artifact, example
from disk import watched
from poisoned import not_finite
from updating_device import Device

from fogline_shared.protocol import DesiredState

GOOD, NEXT, POISONED = artifact(), artifact(shift=1), not_finite()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path / "device")


async def with_two(device: Device, content: bytes) -> tuple[DesiredState, DesiredState]:
    """A sound model, and one that took over."""
    first, second = device.offer(1, GOOD), device.offer(2, content)
    await device.run(first)
    await device.run(second)
    assert device.last == (2, "SUCCEEDED", "")
    return first, second


async def until_reverted(device: Device) -> None:
    """A life of the process in which somebody predicts; nothing new is desired."""

    def reverted() -> bool:
        return device.updater.journal.ledger.watch is None and device.told[-1:] == [(2, "REVERTED", "model_not_finite")]

    await device.run(until=0, whatever=device.ask, goal=reverted)


async def test_model_that_fails_after_its_probation_steps_down_for_good(device: Device) -> None:
    first, second = await with_two(device, POISONED)
    device.boot()
    await until_reverted(device)
    heard = len(device.told)
    device.boot()
    device.updater.resume()
    assert device.serves() == first.artifact_digest
    # The coordinator desires what the device has gone back to.
    await device.run(replace(first, generation=3))
    assert device.told[heard:] == [(3, "SUCCEEDED", "")]
    assert second.artifact_digest not in {device.serves(), device.updater.active_digest()}


async def test_process_that_dies_again_and_again_goes_back(device: Device) -> None:
    first, second = await with_two(device, NEXT)
    for _ in range(3):
        device.boot()
        device.updater.resume()
        assert device.serves() == second.artifact_digest
    device.boot()
    device.updater.resume()
    assert device.serves() == first.artifact_digest
    assert device.last == (2, "REVERTED", "crash_loop")


async def test_starts_that_end_well_or_live_long_are_no_crash_loop(device: Device) -> None:
    _, second = await with_two(device, NEXT)
    for _ in range(6):
        device.boot()
        device.updater.resume()
        device.updater.stop()
    device.limits = {"steady_s": 1}
    for _ in range(6):
        device.boot()
        device.updater._newcomer._since -= 2
        await device.run(until=0, goal=lambda: device.updater.journal.ledger.watch.starts == 0)
    assert device.serves() == second.artifact_digest
    assert device.last == (2, "SUCCEEDED", "")


async def test_restarts_in_good_order_are_no_crash_loop_of_an_attempt(device: Device) -> None:
    await device.run(device.offer(1, GOOD))
    slow = device.offer(2, NEXT, probation_s=60)
    for _ in range(6):
        device.boot()
        await device.run(slow, until=0, goal=lambda: (2, "PROBATION", "") in device.told)
        device.updater.stop()
        assert device.serves() == slow.artifact_digest
        device.told.clear()


async def test_an_end_in_good_order_while_an_attempt_ends_does_not_bring_that_back(device: Device) -> None:
    first = device.offer(1, GOOD)
    await device.run(first)
    poisoned = device.offer(2, POISONED, probation_s=60)
    await device.run(poisoned, until=0, goal=lambda: (2, "PROBATION", "") in device.told)
    device.boot()  # a start that is to be forgiven
    journal, stopping = device.updater.journal, [threading.Thread(target=device.updater.stop)]
    begin = journal.begin

    def slowly(attempt) -> None:
        if threading.current_thread() in stopping:
            time.sleep(0.3)
        begin(attempt)

    def stop() -> None:
        journal.begin = slowly
        stopping[0].start()
        time.sleep(0.1)

    device.finished = stop
    await device.run(poisoned, whatever=device.ask)
    stopping[0].join()
    assert device.last == (2, "REVERTED", "model_not_finite")
    device.boot()
    device.updater.resume()
    assert (device.updater.journal.ledger.attempt, device.serves()) == (None, first.artifact_digest)


async def test_watch_ends_and_lets_go_of_the_model_before(device: Device) -> None:
    _, second = await with_two(device, NEXT)
    device.limits = {"watch_s": 1}
    device.boot()
    device.updater._newcomer._since -= 2
    await device.run(until=0, goal=lambda: device.updater.journal.ledger.watch.over)
    assert set(device.updater._active._models) == {second.artifact_digest}
    for _ in range(6):
        device.boot()
        device.updater.resume()
    assert device.serves() == second.artifact_digest


async def test_going_back_by_the_coordinator_is_not_undone_by_the_device(device: Device) -> None:
    first, second = await with_two(device, NEXT)
    for generation, wanted in ((3, first), (4, second), (5, first)):
        await device.run(replace(wanted, generation=generation))
        assert device.last == (generation, "SUCCEEDED", "")
        assert device.updater.journal.ledger.watch.over
        assert device.updater._active.pointer().digest == wanted.artifact_digest


async def test_alarm_during_the_next_download_goes_back_and_the_download_goes_on(device: Device) -> None:
    first, _ = await with_two(device, POISONED)
    device.boot()
    third = device.offer(3, artifact(scale=3.0))
    held = device.hold_fetches()

    def ask() -> None:
        device.ask()
        if (2, "REVERTED", "model_not_finite") in device.told:
            assert device.updater.journal.ledger.attempt.desired == third
            held.set()

    await device.run(third, whatever=ask)
    assert device.last == (3, "SUCCEEDED", "")
    assert device.updater.journal.ledger.watch.previous.digest == first.artifact_digest
    assert device.predictor.predict(example(2)).label == 2


async def test_power_cut_at_each_write_of_going_back(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what is flushed is told apart from what is not
    origin = Device(tmp_path / "origin")
    first, second = await with_two(origin, POISONED)
    with watched(origin.root) as disk:
        origin.boot()
        origin.finished = disk.say
        await until_reverted(origin)
    for number, left in enumerate(disk.left):
        left.put(tmp_path / str(number))
        device = Device(tmp_path / str(number))
        device.updater.resume()
        assert device.serves() in {first.artifact_digest, second.artifact_digest}, left
        if left.done:
            assert device.serves() == first.artifact_digest, left
        elif device.told:  # the start finished what was under way
            assert device.told == [(2, "REVERTED", "model_not_finite")], left
            assert device.serves() == first.artifact_digest, left
        else:
            await until_reverted(device)
            assert device.serves() == first.artifact_digest, left
        device.updater._p.watchdog.end()
    assert len(disk.left) > 10


async def test_power_cut_at_each_write_of_a_start_in_a_crash_loop(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    origin = Device(tmp_path / "origin")
    first, second = await with_two(origin, NEXT)
    with watched(origin.root) as disk:
        origin.finished = disk.say
        for _ in range(4):
            origin.boot()
            origin.updater.resume()
    assert origin.last == (2, "REVERTED", "crash_loop")
    for number, left in enumerate(disk.left):
        left.put(tmp_path / str(number))
        device = Device(tmp_path / str(number))
        for _ in range(5):
            device.updater.resume()
            assert device.serves() in {first.artifact_digest, second.artifact_digest}, left
            device.boot()
        assert device.serves() == "", "a process that has not started"
        device.updater.resume()
        assert device.serves() == first.artifact_digest, left
        device.updater._p.watchdog.end()
    assert len(disk.left) > 10
