"""The agent's training child: a real process that trains, crashes, is killed, idles."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tiny_recipe
from tiny_recipe import Tiny, signals

from fogline_client.training.host import TrainingHost
from fogline_recipes import parameters
from fogline_recipes.device import fingerprint_of
from fogline_shared import tensors
from fogline_shared.privacy.accountant import Releases, epsilon
from fogline_shared.privacy.local import Local
from fogline_shared.protocol import TaskOffer
from fogline_shared.recipe import TrainPlan

STATISTICS = Tiny().channel_sums(signals(1, 64)).standardisation()


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TrainingHost]:
    # The child finds the tiny recipe as this process does.
    monkeypatch.setenv("PYTHONPATH", str(Path(tiny_recipe.__file__).parent))
    host = TrainingHost("tiny", {"seed": "1"}, tmp_path)
    yield host
    await host.close()


def params(tmp_path: Path) -> Path:
    path = tmp_path / "params"
    path.write_bytes(b"".join(tensors.encode(parameters.read(Tiny().model("student", seed=0)))))
    return path


def offer(number: int, *, kind: str = "train", **config: object) -> TaskOffer:
    plan = {"epochs": 1, "batch_size": 32, "learning_rate": 0.01, "seed": number}
    values = {"size": "student", **STATISTICS.as_json(), **plan, **config}
    records = {"arrays": {"kind": "arrays"}, "config": {"kind": "config", "values": values}}
    if kind == "query":
        records.pop("arrays")
    return TaskOffer(
        task_id=f"run_1-{number}-{kind}-101",
        run_id="run_1",
        round=number,
        kind=kind,
        recipe="tiny",
        records_json=json.dumps(records),
        blobs=(),
        deadline=0.0,
        group_id=str(number),
        message_type=kind,
        node_id=101,
        max_reply_bytes=1 << 20,
    )


async def test_child_answers_as_the_recipe_in_this_process_does(host: TrainingHost, tmp_path: Path) -> None:
    path, reply = await host.run(offer(1), {"arrays": params(tmp_path)})
    assert reply.error_code == ""
    assert path is not None
    blob = path.read_bytes()
    assert (reply.digest, reply.size) == (tensors.digest([blob]), len(blob))

    model = Tiny().model("student", seed=0)
    seed = (1 * 1_000_003 + fingerprint_of(signals(1, 64))) % 2**63
    plan = TrainPlan(epochs=1, batch_size=32, learning_rate=0.01, seed=seed)
    result = Tiny().train(model, signals(1, 64), STATISTICS, plan)
    for name, array in tensors.decode(blob).items():
        np.testing.assert_allclose(array, parameters.read(model)[name], rtol=1e-5, atol=1e-6)
    metrics = json.loads(reply.records_json)["metrics"]["values"]
    assert metrics["num-examples"] == 64
    assert metrics["loss"] == pytest.approx(result.loss, rel=1e-4)


async def test_child_stays_warm_between_rounds_and_answers_all_kinds(host: TrainingHost, tmp_path: Path) -> None:
    path, reply = await host.run(offer(0, kind="query"), {})
    assert (path, reply.error_code, reply.digest) == (None, "", "")
    assert len(json.loads(reply.records_json)["metrics"]["values"]["total"]) == 6
    first = host.pid
    _, reply = await host.run(offer(1, kind="evaluate"), {"arrays": params(tmp_path)})
    assert 0 <= json.loads(reply.records_json)["metrics"]["values"]["accuracy"] <= 1
    assert host.pid == first


async def test_child_that_is_idle_goes_and_comes_back(host: TrainingHost, tmp_path: Path) -> None:
    host._idle_s = 0.1
    await host.run(offer(0, kind="query"), {})
    pid = host.pid
    assert pid is not None
    for _ in range(100):
        if not psutil.pid_exists(pid):
            break
        await asyncio.sleep(0.1)
    assert not psutil.pid_exists(pid)
    _, reply = await host.run(offer(1), {"arrays": params(tmp_path)})
    assert reply.error_code == ""


async def test_killed_child_is_an_error_reply_and_the_next_task_works(host: TrainingHost, tmp_path: Path) -> None:
    blobs = {"arrays": params(tmp_path)}
    await host.run(offer(0, kind="query"), {})
    training = asyncio.create_task(host.run(offer(1, epochs=100_000), blobs))
    await asyncio.sleep(0.2)
    assert host.pid is not None
    os.kill(host.pid, signal.SIGKILL)
    _, reply = await training
    assert reply.error_code == "training_child_died"
    assert "-9" in reply.error_message
    _, reply = await host.run(offer(2), blobs)
    assert reply.error_code == ""


async def test_canceled_task_leaves_no_child_at_work(host: TrainingHost, tmp_path: Path) -> None:
    blobs = {"arrays": params(tmp_path)}
    await host.run(offer(0, kind="query"), {})
    pid = host.pid
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await host.run(offer(1, epochs=100_000), blobs)
    assert pid is not None
    assert not psutil.pid_exists(pid)
    _, reply = await host.run(offer(2), blobs)
    assert (reply.task_id, reply.error_code) == (offer(2).task_id, "")


async def test_child_ends_when_its_agent_is_gone(tmp_path: Path, host: TrainingHost) -> None:
    await host.run(offer(0, kind="query"), {})
    pid = host.pid
    assert pid is not None
    training = asyncio.create_task(host.run(offer(1, epochs=100_000), {"arrays": params(tmp_path)}))
    await asyncio.sleep(0.3)
    assert host._child is not None
    assert host._child.stdin is not None
    host._child.stdin.close()
    _, reply = await training
    assert reply.error_code == "training_child_died"
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    ("recipe", "options", "code"),
    [("tiny", {}, "invalid_option"), ("nobody", {}, "unknown_recipe")],
)
async def test_device_that_cannot_train_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, options: dict, code: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(tiny_recipe.__file__).parent))
    host = TrainingHost(recipe, options, tmp_path)
    _, reply = await host.run(offer(0, kind="query"), {})
    await host.close()
    assert reply.error_code == code


async def test_truncated_parameters_are_refused_by_name(host: TrainingHost, tmp_path: Path) -> None:
    path = params(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-9])
    _, reply = await host.run(offer(1), {"arrays": path})
    assert reply.error_code == "bad_tensors"
    path.write_bytes(whole)
    _, reply = await host.run(offer(1), {"arrays": path})
    assert reply.error_code == ""


def test_agent_side_of_training_loads_neither_torch_nor_flwr() -> None:
    code = "import sys, fogline_client.training.host; print(sorted({'torch', 'flwr'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_a_device_answers_no_more_than_its_own_budget_allows_and_nothing_without_noise(
    host: TrainingHost, tmp_path: Path
) -> None:
    local = Local(clip=0.1, noise_multiplier=2.0)
    once = epsilon([Releases(noise_multiplier=2.0, rounds=1)], 1e-5)
    own = TrainingHost("tiny", {"seed": "1"}, tmp_path, local_epsilon=once, local_delta=1e-5)
    blobs = {"arrays": params(tmp_path)}
    try:
        _, query = await own.run(offer(0, kind="query"), {})
        _, bare = await own.run(offer(1), blobs)
        assert query.error_code == bare.error_code == "local_privacy_required"
        _, reply = await own.run(offer(1, **local.config()), blobs)
        told = json.loads(reply.records_json)
        assert (reply.error_code, told["metrics"]["values"]) == ("", {"num-examples": 1, "loss": 0.0})
        assert told["privacy"]["values"] == local.config()
        _, reply = await own.run(offer(2, **local.config()), blobs)
        assert (reply.error_code, reply.digest) == ("local_budget_spent", "")
    finally:
        await own.close()
