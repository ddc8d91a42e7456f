"""A device measures an artifact in a real process: figures that hold, a cache, and whatever may be wrong."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import time
from pathlib import Path

import psutil
import pytest
from artifacts import artifact
from bad_models import allocating, looping

from fogline_client.measuring.measuring import Measuring, MeasuringLimits, MeasuringParts
from fogline_client.slots import Slots
from fogline_shared.errors import Corrupt, Exhausted, FoglineError, Unavailable
from fogline_shared.measurement import ARTIFACT, MEASURE, Figures, Subject
from fogline_shared.protocol import BlobRef, DesiredState, TaskOffer

SOUND = artifact()
MIB = 1 << 20


class Device:
    """A device whose slot A is active with ``SOUND``; ``cloud``: what may be fetched, by digest."""

    def __init__(
        self, root: Path, *, options: dict[str, int] | None = None, cpu_s: float = 30, bring_s: float = 30
    ) -> None:
        self.root = root
        self.slots = Slots(root / "slots")
        if self.slots.active() is None:
            (root / "first").write_bytes(SOUND)
            self.slots.activate(self.slots.stage(root / "first", _digest(SOUND)))
        self.cloud: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.checked: list[DesiredState] = []
        self.untrusted: FoglineError | None = None
        self.faults: list[Exception] = []
        self.facts: dict[str, object] = {"metered": False}
        self.settled = True
        self.connected = asyncio.Event()
        self.connected.set()
        self.measuring = Measuring(
            MeasuringParts(
                folder=root / "measuring",
                slots=self.slots,
                fetch=self.fetch,
                trust=self,
                facts=lambda: self.facts,
                settled=lambda: self.settled,
                waits=lambda: iter([0.01] * 10),
                engine_options=options or {},
                limits=MeasuringLimits(cpu_s=cpu_s, memory_bytes=256 * MIB, update_s=0.2, bring_s=bring_s),
            )
        )

    async def check(self, desired: DesiredState) -> None:
        self.checked.append(desired)
        await self.connected.wait()
        if self.untrusted:
            raise self.untrusted

    async def fetch(self, digest: str, _size: int, target: Path) -> None:
        self.fetched.append(digest)
        if self.faults:
            raise self.faults.pop(0)
        target.write_bytes(self.cloud[digest])

    async def measure(self, content: bytes) -> Figures:
        """The figures of an artifact; raises what the device answers instead."""
        digest = _digest(content)
        self.cloud[digest] = content
        offer = TaskOffer(
            task_id="measurement_1",
            run_id="",
            round=0,
            kind=MEASURE,
            recipe="",
            records_json=Subject(release_id="rel_1", variant="student_fp32").to_json(),
            blobs=(BlobRef(record=ARTIFACT, digest=digest, size=len(content)),),
            deadline=time.time() + 60,
            group_id="",
            message_type="",
            node_id=0,
            max_reply_bytes=0,
        )
        try:
            reply = await self.measuring.answer(offer)
        finally:
            left = [path.name for path in (self.root / "measuring").glob("*")]
            assert left in ([], ["results.json"])
            assert self.slots.holds("A", _digest(SOUND))
        assert (reply.task_id, reply.digest, reply.size, reply.error_code) == ("measurement_1", "", 0, "")
        return Figures.from_json(json.loads(reply.records_json))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


async def refused(device: Device, content: bytes) -> str:
    """The code of the device's answer."""
    with pytest.raises(FoglineError) as caught:
        await device.measure(content)
    return caught.value.code


async def test_an_artifact_is_fetched_checked_measured_and_remembered(device: Device, tmp_path: Path) -> None:
    content = artifact(shift=1)
    figures = await device.measure(content)
    assert 0 < figures.p50_us <= figures.p99_us
    assert figures.load_ms > 0
    assert 10 * MIB < figures.memory_bytes < 1024 * MIB
    assert (figures.size, figures.engine, figures.cached) == (len(content), "onnxruntime_cpu", False)
    assert figures.runs >= 20
    assert "onnxruntime" in figures.machine
    assert device.fetched == [_digest(content)]
    assert [(d.release_id, d.variant, d.artifact_digest, d.artifact_size) for d in device.checked] == [
        ("rel_1", "student_fp32", _digest(content), len(content))
    ]
    # Also by the next process, also when the device would not measure now; not for another engine.
    again = Device(tmp_path)
    again.facts = {"battery_percent": 3}
    assert await again.measure(content) == Figures.from_json({**figures.as_json(), "cached": True})
    assert (again.fetched, again.checked) == ([], [])
    other = Device(tmp_path, options={"arena": True})
    assert (await other.measure(content)).engine == "onnxruntime_cpu arena=True"
    (tmp_path / "measuring" / "results.json").write_text("{")
    assert not (await Device(tmp_path).measure(SOUND)).cached


async def test_what_lies_in_a_slot_is_not_fetched(device: Device) -> None:
    device.facts = {"metered": True}
    assert (await device.measure(SOUND)).size == len(SOUND)
    assert device.fetched == []
    assert await refused(device, artifact(shift=1)) == "network_metered"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (looping(), "measuring_too_long"),
        (allocating(), "measuring_out_of_memory"),
        (artifact(known_label=2), "known_answer_failed"),
        (artifact(nan=True), "output_not_finite"),
        (b"no model", "not_a_model"),
    ],
    ids=["looping", "allocating", "wrong answers", "NaN", "no model"],
)
async def test_a_bad_artifact_is_an_answer_with_a_code(tmp_path: Path, content: bytes, code: str) -> None:
    device = Device(tmp_path, cpu_s=0.3 if code == "measuring_too_long" else 30)
    assert await refused(device, content) == code
    assert not (tmp_path / "measuring" / "results.json").exists()


async def test_a_device_that_is_busy_or_low_answers_so(device: Device) -> None:
    device.settled = False
    assert await refused(device, artifact(shift=1)) == "update_under_way"
    device.settled, device.facts = True, {"battery_percent": 19, "charging": False}
    assert await refused(device, artifact(shift=1)) == "battery_low"
    device.facts = {"battery_percent": 19, "charging": True, "metered": False}
    device.settled = False
    measured = asyncio.create_task(device.measure(artifact(shift=1)))
    await asyncio.sleep(0.05)
    device.settled = True
    assert (await measured).runs


@pytest.mark.parametrize(
    ("fault", "code", "times"),
    [
        (OSError(errno.ENOSPC, "full"), "disk_full", 1),
        (Exhausted("disk_full", "full"), "disk_full", 1),
        (OSError(errno.EROFS, "read-only"), "disk_read_only", 1),
        (OSError(errno.EIO, "broken"), "io_failed", 1),
        (Corrupt("digest_mismatch", "other bytes"), "digest_mismatch", 1),
        (Unavailable("transfer_cut", "cut"), "transfer_cut", 4),
    ],
)
async def test_a_download_that_fails_is_tried_again_only_where_that_may_help(
    device: Device, fault: Exception, code: str, times: int
) -> None:
    device.faults = [fault] * 10
    assert await refused(device, artifact(shift=1)) == code
    assert len(device.fetched) == times


async def test_nothing_unsigned_is_fetched(device: Device) -> None:
    device.untrusted = Corrupt("target_not_listed", "nobody signed it")
    assert await refused(device, artifact(shift=1)) == "target_not_listed"
    assert device.fetched == []


async def test_a_device_that_is_offline_does_not_hold_its_other_tasks_up_for_ever(tmp_path: Path) -> None:
    device = Device(tmp_path, bring_s=0.05)
    device.connected.clear()
    assert await refused(device, artifact(shift=1)) == "measuring_not_begun"


async def test_a_measurement_that_is_cut_off_leaves_no_process_and_no_file(tmp_path: Path) -> None:
    device = Device(tmp_path)
    before = set(psutil.Process().children(recursive=True))
    measured = asyncio.create_task(device.measure(looping()))
    async with asyncio.timeout(10):
        while not (measuring := set(psutil.Process().children(recursive=True)) - before):  # noqa: ASYNC110 - another process's truth
            await asyncio.sleep(0.01)
    measured.cancel()
    with pytest.raises(asyncio.CancelledError):
        await measured
    assert not any(process.is_running() for process in measuring)
