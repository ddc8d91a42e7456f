"""The residual of a device outlives its training child, and a task that comes again does not add it twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
import tiny_recipe
from tiny_recipe import Tiny, signals

from fogline_client.training.host import TrainingHost
from fogline_client.training.memory import Memory
from fogline_recipes import parameters
from fogline_shared import flower, tensors
from fogline_shared.flower import RecordDict
from fogline_shared.protocol import TaskOffer

STATISTICS = Tiny().channel_sums(signals(1, 64)).standardisation()
MakeHost = Callable[[], TrainingHost]


@pytest.fixture
async def make_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MakeHost]:
    """Hosts over the same folder: an agent that starts anew."""
    monkeypatch.setenv("PYTHONPATH", str(Path(tiny_recipe.__file__).parent))
    hosts: list[TrainingHost] = []

    def make() -> TrainingHost:
        hosts.append(TrainingHost("tiny", {"seed": "1"}, tmp_path / "training"))
        return hosts[-1]

    yield make
    for host in hosts:
        await host.close()


def offer(number: int, *, run: str = "run_1", codec: str = "topk") -> TaskOffer:
    plan = {"epochs": 1, "batch_size": 32, "learning_rate": 0.01, "seed": 7}
    codec_of = {"codec": codec, "codec_options": "{}", "round": number}
    values = {"size": "student", **STATISTICS.as_json(), **plan, **codec_of}
    records = {"arrays": {"kind": "arrays"}, "config": {"kind": "config", "values": values}}
    return TaskOffer(
        task_id=f"{run}-{number}-train-101",
        run_id=run,
        round=number,
        kind="train",
        recipe="tiny",
        records_json=json.dumps(records),
        blobs=(),
        deadline=0.0,
        group_id=str(number),
        message_type="train",
        node_id=101,
        max_reply_bytes=1 << 20,
    )


def params(tmp_path: Path) -> dict[str, Path]:
    path = tmp_path / "params"
    path.write_bytes(b"".join(tensors.encode(parameters.read(Tiny().model("student", seed=0)))))
    return {"arrays": path}


async def digest(host: TrainingHost, task: TaskOffer, blobs: dict[str, Path]) -> str:
    _, reply = await host.run(task, blobs)
    assert reply.error_code == ""
    return reply.digest


async def test_residual_outlives_the_child_and_is_added_once(make_host: MakeHost, tmp_path: Path) -> None:
    blobs = params(tmp_path)
    host = make_host()
    first = await digest(host, offer(1), blobs)
    second = await digest(host, offer(2), blobs)
    # The seed is the same each round here, so only the residual can make a difference.
    assert second != first
    assert await digest(host, offer(2), blobs) == second
    await host.close()

    host = make_host()
    assert await digest(host, offer(2), blobs) == second, "the reply was lost with the agent, and the task comes again"
    third = await digest(host, offer(3), blobs)
    assert host.pid is not None
    os.kill(host.pid, signal.SIGKILL)
    await asyncio.sleep(0.2)
    host = make_host()
    assert await digest(host, offer(3), blobs) == third
    assert third not in (first, second)


async def test_another_run_begins_without_a_residual(make_host: MakeHost, tmp_path: Path) -> None:
    blobs = params(tmp_path)
    host = make_host()
    first = await digest(host, offer(1), blobs)
    second = await digest(host, offer(2), blobs)
    assert await digest(host, offer(1, run="run_2"), blobs) == first
    # Two runs may be under way at a time, and keep theirs.
    assert await digest(host, offer(2), blobs) == second
    assert len(list((tmp_path / "training" / "memory").iterdir())) == 2


async def test_residual_that_cannot_be_read_is_forgotten(make_host: MakeHost, tmp_path: Path) -> None:
    blobs = params(tmp_path)
    host = make_host()
    first = await digest(host, offer(1), blobs)
    await host.close()
    (path,) = (tmp_path / "training" / "memory").glob("*/*.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    assert await digest(make_host(), offer(2), blobs) == first
    assert path.parent.exists()


async def test_plain_run_leaves_nothing_behind(make_host: MakeHost, tmp_path: Path) -> None:
    await digest(make_host(), offer(1, codec="of_tomorrow"), params(tmp_path))
    assert not (tmp_path / "training" / "memory").exists()


def state(**residuals: float) -> RecordDict:
    return RecordDict(
        {name: flower.to_record({"w": np.full(3, value, np.float32)}) for name, value in residuals.items()}
    )


def test_memory_keeps_what_changed_and_removes_what_is_gone(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory")
    memory.keep("run", state(), state())
    assert not (tmp_path / "memory").exists()
    before = state(one=1.0, two=2.0)
    memory.keep("run", before, state())
    after = RecordDict({"two": before["two"], **state(three=3.0)})
    untouched = next((tmp_path / "memory").glob("*/two.safetensors"))
    untouched.write_bytes(b"".join(tensors.encode({"w": np.full(3, 9.0, np.float32)})))
    memory.keep("run", after, before)
    recalled = memory.recall("run")
    assert {name: float(recalled[name]["w"].numpy()[0]) for name in recalled} == {"two": 9.0, "three": 3.0}
    assert list(memory.recall("another")) == []


def test_memory_keeps_the_two_runs_used_last_and_none_for_longer_than_a_month(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory")
    now = tmp_path.stat().st_mtime
    for age, run in enumerate(("a", "b", "c")):
        known = set((tmp_path / "memory").glob("*"))
        memory.keep(run, state(one=1.0), state())
        (made,) = set((tmp_path / "memory").glob("*")) - known
        os.utime(made, (now - 100 + age, now - 100 + age))
    assert [list(memory.recall(run)) for run in ("a", "b", "c")] == [[], ["one"], ["one"]]
    for folder in (tmp_path / "memory").iterdir():
        os.utime(folder, (now - 31 * 86_400, now - 31 * 86_400))
    memory.keep("d", state(one=1.0), state())
    assert [list(memory.recall(run)) for run in ("b", "c", "d")] == [[], [], ["one"]]
