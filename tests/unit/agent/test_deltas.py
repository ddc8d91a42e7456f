"""An artifact by deltas: a power cut at every write, and every reason to fetch the whole one instead."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from artifacts import artifact
from disk import watched

from fogline_client import durable
from fogline_client.deltas import Deltas
from fogline_client.slots import Slots
from fogline_server.registry.deltas.build import build, pack
from fogline_shared.delta import NOTHING
from fogline_shared.errors import Conflict, Corrupt, Exhausted, NotFound, Unavailable
from fogline_shared.protocol import DeltaStep

V1, V2, V3 = (artifact(scale=scale) for scale in (5.0, 5.5, 6.0))


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Device:
    """A folder with ``V1`` in its active slot, and a cloud that has what was put into it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.slots = Slots(root / "slots")
        self.cloud = {digest(V3): V3}
        self.steps: list[DeltaStep] = []
        self.fetched: list[str] = []
        self.refusal: Exception | None = None
        if self.slots.active() is None:
            (root / "first").write_bytes(V1)
            self.slots.activate(self.slots.stage(root / "first", digest(V1)))

    def offer(self, base: bytes, target: bytes, *, made: bytes | None = None) -> DeltaStep:
        blob = made or (build(base, target) if base else pack(target))
        self.cloud[digest(blob)] = blob
        self.steps.append(
            DeltaStep(
                digest=digest(blob),
                size=len(blob),
                base=digest(base) if base else NOTHING,
                target=digest(target),
                target_size=len(target),
            )
        )
        return self.steps[-1]

    async def ask(self, _target: str, _held: object) -> list[DeltaStep]:
        if self.refusal:
            raise self.refusal
        return self.steps

    async def fetch(self, name: str, size: int, target: Path) -> None:
        if target.exists() and durable.digest_of(target) == name:
            return
        if name not in self.cloud:
            raise NotFound("blob_not_found", name)
        self.fetched.append(name)
        durable.make_folder(target.parent)
        durable.write(target, self.cloud[name])
        if durable.digest_of(target) != name or len(self.cloud[name]) != size:
            target.unlink()
            raise Corrupt("digest_mismatch", name)

    async def update(self) -> list[str]:
        """Bring ``V3``; what was fetched for it."""
        self.fetched = []
        target = self.root / "incoming" / digest(V3)
        await Deltas(self.slots, ask=self.ask, fetch=self.fetch).fetch(digest(V3), len(V3), target)
        assert target.read_bytes() == V3
        assert self.slots.path("A").read_bytes() == V1
        return self.fetched


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


async def test_a_delta_is_fetched_in_place_of_the_artifact(device: Device) -> None:
    step = device.offer(V1, V3)
    assert await device.update() == [step.digest]
    assert await device.update() == []


async def test_deltas_are_chained_and_may_begin_with_nothing(device: Device) -> None:
    first, second = device.offer(b"", V2), device.offer(V2, V3)
    assert await device.update() == [first.digest, second.digest]


async def test_power_cut_at_each_write_of_a_chain_of_deltas(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # what is flushed is told apart from what is not
    origin = Device(tmp_path / "origin")
    steps = [origin.offer(V1, V2), origin.offer(V2, V3)]
    with watched(origin.root) as disk:
        await origin.update()
        disk.say()
    for number, left in enumerate(disk.left):
        left.put(tmp_path / str(number))
        device = Device(tmp_path / str(number))
        device.cloud, device.steps = origin.cloud, steps
        made = device.root / "incoming" / digest(V3)
        assert not made.exists() or digest(made.read_bytes()) == digest(V3) or not left.done, left
        # The power is back: nothing but deltas is fetched, and none twice.
        fetched = await device.update()
        assert fetched == sorted(set(fetched), key=[step.digest for step in steps].index), left
        assert not (left.done and fetched), left
        assert list(device.slots.path("B").parent.iterdir()) == []
    assert len(disk.left) > 15


async def test_a_damaged_base_costs_the_whole_artifact_not_the_update(device: Device, monkeypatch) -> None:
    step = device.offer(V1, V3)
    real, active = device.fetch, device.slots.path("A")

    async def damaging(name: str, size: int, target: Path) -> None:
        await real(name, size, target)
        active.write_bytes(V1[:-1] + b"!")

    device.fetch = damaging
    target = device.root / "incoming" / digest(V3)
    await Deltas(device.slots, ask=device.ask, fetch=device.fetch).fetch(digest(V3), len(V3), target)
    assert (target.read_bytes(), device.fetched) == (V3, [step.digest, digest(V3)])


@pytest.mark.parametrize(
    "lie",
    [
        pytest.param(lambda d: d.offer(V1, V3, made=build(V2, V3)), id="for another base"),
        pytest.param(lambda d: d.offer(V1, V3, made=build(V1, V2)), id="to another target"),
        pytest.param(lambda d: d.offer(V1, V3, made=build(V1, V3)[:-1]), id="cut short"),
        pytest.param(lambda d: d.offer(V1, V3, made=b"x" * 50), id="no delta"),
    ],
)
async def test_a_delta_that_cannot_be_applied_is_followed_by_the_whole(device: Device, lie) -> None:
    step = lie(device)
    assert await device.update() == [step.digest, digest(V3)]
    assert [path.name for path in (device.root / "incoming").iterdir() if path.name.endswith("making")] == []


async def test_a_delta_that_is_gone_or_damaged_is_followed_by_the_whole(device: Device) -> None:
    step = device.offer(V1, V3)
    device.cloud[step.digest] = b"x" * step.size
    assert await device.update() == [step.digest, digest(V3)]
    shutil.rmtree(device.root / "incoming")
    del device.cloud[step.digest]
    assert await device.update() == [digest(V3)]


@pytest.mark.parametrize(
    "change",
    [
        {"base": digest(V2)},
        {"target": digest(V2)},
        {"target_size": len(V3) + 1},
        {"size": len(V3)},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_an_offer_that_makes_no_sense_is_not_fetched(device: Device, change: dict) -> None:
    device.steps = [replace(device.offer(V1, V3), **change)]
    assert await device.update() == [digest(V3)]


async def test_a_huge_artifact_on_the_way_is_not_made(device: Device) -> None:
    huge = bytes(10 * len(V3))
    device.offer(V1, huge)
    device.offer(huge, V3)
    assert await device.update() == [digest(V3)]


async def test_what_is_half_here_whole_goes_on_whole(device: Device) -> None:
    device.offer(V1, V3)
    (device.root / "incoming").mkdir()
    (device.root / "incoming" / f"{digest(V3)}.part").write_bytes(V3[:100])
    assert await device.update() == [digest(V3)]


async def test_a_coordinator_that_refuses_deltas_is_asked_for_the_whole_and_one_that_is_away_again(
    device: Device,
) -> None:
    device.refusal = Conflict("whatever", "…")
    assert await device.update() == [digest(V3)]
    shutil.rmtree(device.root / "incoming")
    device.refusal = Unavailable("transfer_cut", "…")
    with pytest.raises(Unavailable):
        await device.update()


async def test_a_full_disk_is_told_as_such(device: Device, monkeypatch) -> None:
    device.offer(V1, V3)

    def full(path: Path, *_args) -> None:
        raise Exhausted("disk_full", str(path))

    monkeypatch.setattr(durable, "move", full)
    with pytest.raises(Exhausted, match="disk_full"):
        await device.update()
    await asyncio.sleep(0)
    assert [p for p in (device.root / "incoming").iterdir() if p.name.startswith(digest(V3))] == []
