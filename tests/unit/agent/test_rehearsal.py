"""A candidate that would take the agent with it takes only the process in which it is rehearsed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from artifacts import artifact, example
from endless_models import endless, hungry
from updating_device import Device

from fogline_client import durable
from fogline_client.measuring import apart
from fogline_client.measuring.rehearsal import Rehearsal
from fogline_shared.errors import Exhausted, Unavailable


@pytest.fixture
def device(tmp_path: Path) -> Device:
    device = Device(tmp_path / "device")
    device.rehearse = Rehearsal(cpu_s=1, memory_bytes=256 << 20)
    device.boot()
    return device


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (endless, "model_hangs"),
        (lambda: artifact(known_label=3), "known_answer_failed"),
    ],
)
async def test_a_model_that_does_not_survive_its_rehearsal_is_never_loaded(device: Device, content, code: str) -> None:
    good = device.offer(1, artifact())
    await device.run(good)
    device.updater._active.load = None  # nobody may
    await device.run(device.offer(2, content()), whatever=device.ask)
    assert device.last == (2, "REJECTED", code)
    assert device.serves() == good.artifact_digest
    assert device.predictor.predict(example(2)).label == 2


async def test_a_model_that_allocates_without_end_is_refused(device: Device, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(hungry())
    with pytest.raises(Exhausted, match="measuring_out_of_memory"):
        await device.rehearse(path, durable.digest_of(path))


async def test_a_model_that_ends_its_process_is_told_apart_from_one_that_cannot_be_started(
    device: Device, monkeypatch
) -> None:
    await device.run(device.offer(1, artifact()))
    real = apart.asyncio.create_subprocess_exec

    async def killed(*command: str, **options: object):
        child = await real(*command, **options)
        os.kill(child.pid, signal.SIGSEGV)
        return child

    with monkeypatch.context() as patch:
        patch.setattr(apart.asyncio, "create_subprocess_exec", killed)
        await device.run(device.offer(2, artifact(shift=1)))
    assert device.last == (2, "REJECTED", "model_kills")

    async def none_left(*_command: str, **_options: object):
        raise BlockingIOError("Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(apart.asyncio, "create_subprocess_exec", none_left)
        with pytest.raises(Unavailable, match="io_failed"):
            await device.rehearse(Path("model.onnx"), "a")


async def test_too_little_memory_is_tried_again(device: Device) -> None:
    await device.run(device.offer(1, artifact()))
    rehearse, faults = device.rehearse, [Exhausted("measuring_out_of_memory", "…")] * 2

    async def busy(path: Path, digest: str) -> None:
        if faults:
            raise faults.pop()
        await rehearse(path, digest)

    device.rehearse = busy
    device.boot()
    await device.run(device.offer(2, artifact(shift=1)))
    assert device.last == (2, "SUCCEEDED", "")
