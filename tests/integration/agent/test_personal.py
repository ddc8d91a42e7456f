"""A personal head on a device: made by a real process of its own, served when it wins; whatever fails, the release serves."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import resource
from pathlib import Path

import numpy as np
import onnx
import psutil
import pytest
import tiny_recipe
from agent_process import until
from onnx import TensorProto, helper, numpy_helper

from fogline_client.config import AgentConfig
from fogline_client.inference.predictor import Predictor
from fogline_client.personal import Personal, PersonalParts
from fogline_client.slots import Pointer, Slots
from fogline_client.telemetry.recorder import Health
from fogline_server.compression.stamp import write_manifest
from fogline_server.devices.tables import Device
from fogline_shared.errors import InvalidInput
from fogline_shared.manifest import Manifest
from fogline_shared.states import AssignmentState

SUPPORT = str(Path(tiny_recipe.__file__).parent)
SHAPE = tiny_recipe.Tiny.input_shape
OPTIONS = {"seed": "3"}


def released(version: int = 1, *, recipe: str = "tiny") -> bytes:
    """Energy in random directions, which tells the classes apart, under a head that always says class ``version``."""
    rng = np.random.default_rng(0)
    turns = 2 * np.pi * np.arange(1, 5)[:, None] * np.arange(32) / 32
    waves = np.concatenate([np.sin(turns), np.cos(turns)])
    first = np.concatenate([(rng.normal(size=(8, 6, 1)) * waves[:, None]).reshape(8, -1) for _ in range(8)])
    values = {
        "w1": first,
        "b1": -5.0 * first.sum(axis=1),
        "w2": np.zeros((4, 64)),
        "b2": 0.1 * np.eye(4)[version % 4],
    }
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w1", "b1"], ["hidden"], transB=1),
        helper.make_node("Abs", ["hidden"], ["features"]),
        helper.make_node("Gemm", ["features", "w2", "b2"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", *SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    manifest = Manifest(
        recipe=recipe,
        variant="student_fp32",
        input_name="input",
        input_shape=SHAPE,
        output_name="logits",
        classes=tiny_recipe.Tiny.classes,
    )
    return write_manifest(model.SerializeToString(), manifest)


class Watch:
    """Slots, a predictor and a folder, as an agent has them."""

    def __init__(self, root: Path, **options: str) -> None:
        self.folder = root / "personal"
        self.slots = Slots(root / "slots")
        self.predictor = Predictor()
        self.told: list[dict] = []
        self.sick = Health()
        self.options = options or OPTIONS
        self.personal = self.started()

    def started(self) -> Personal:
        return Personal(
            PersonalParts(
                folder=self.folder,
                recipe="tiny",
                options=self.options,
                slots=self.slots,
                predictor=self.predictor,
                settled=lambda: True,
                health=lambda digest: self.sick,
                tell=lambda facts: self.told.append(dict(facts)),
                after_s=0.0,
                look_every_s=0.02,
            )
        )

    def release(self, artifact: bytes) -> str:
        digest = hashlib.sha256(artifact).hexdigest()
        spare = self.slots.spare()
        self.slots.path(spare).write_bytes(artifact)
        self.slots.activate(Pointer(slot=spare, digest=digest))
        self.predictor.swap(self.predictor.load(self.slots.path(spare)))
        return digest

    @property
    def now(self) -> dict:
        return self.told[-1] if self.told else {}

    @contextlib.asynccontextmanager
    async def running(self):
        self.told.clear()
        self.personal = self.started()
        task = asyncio.create_task(self.personal.run())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def device(tmp_path, monkeypatch) -> Watch:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")]))
    return Watch(tmp_path)


async def test_a_head_that_wins_serves_outlives_a_restart_and_is_made_anew_for_a_new_release(device) -> None:
    first = device.release(released(1))
    async with device.running():
        await until(lambda: device.now.get("personal"))
        assert device.now["personal_gain"] > 0.1
        assert device.predictor.active_digest != first
        assert device.personal.released_digest() == first
    made = device.predictor.active_digest

    device.release(released(1))
    before = (device.folder / "model.onnx").stat().st_mtime_ns
    async with device.running():
        await until(lambda: device.predictor.active_digest == made)
        assert (device.folder / "model.onnx").stat().st_mtime_ns == before

        second = device.release(released(2))
        assert device.predictor.active_digest == second
        await until(lambda: device.predictor.active_digest not in (second, made))
        assert device.personal.released_digest() == second

        back = device.release(released(1))
        assert device.predictor.active_digest == back == first


async def test_a_damaged_personal_file_leaves_the_release_serving(device) -> None:
    digest = device.release(released())
    async with device.running():
        await until(lambda: device.now.get("personal"))
    device.release(released())
    with (device.folder / "model.onnx").open("r+b") as file:
        file.truncate(200)
    async with device.running():
        await until(lambda: device.now.get("personal_why") == "digest_mismatch")
        assert device.predictor.active_digest == digest


async def test_a_personal_model_that_killed_the_process_while_loading_is_not_loaded_again(device) -> None:
    digest = device.release(released())
    async with device.running():
        await until(lambda: device.now.get("personal"))
    device.release(released())
    record = device.folder / "record.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "loading": True}))
    async with device.running():
        await until(lambda: device.now.get("personal_why") == "crashed_while_loading")
        assert device.predictor.active_digest == digest


async def test_a_personal_model_that_fails_in_service_steps_down(device) -> None:
    digest = device.release(released())
    async with device.running():
        await until(lambda: device.now.get("personal"))
        device.sick = Health(predictions=10, errors=9)
        await until(lambda: device.predictor.active_digest == digest)
        await until(lambda: "predictions failed" in device.now.get("personal_why", ""))
    assert not (device.folder / "model.onnx").exists()


async def test_the_release_serves_when_the_fitting_is_killed_in_the_middle(device) -> None:
    def fitting() -> list[psutil.Process]:
        children = psutil.Process().children()
        return [child for child in children if "fogline_client.training.personal" in child.cmdline()]

    digest = device.release(released())
    async with device.running():
        (child,) = await until(fitting)
        child.kill()
        await until(lambda: device.now.get("personal_why") == "personalising_died")
        assert device.predictor.active_digest == digest
    async with device.running():
        await until(lambda: device.now.get("personal"))


async def test_the_release_serves_on_a_full_disk(device) -> None:
    digest = device.release(released())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        async with device.running():
            await until(lambda: device.now.get("personal_why") == "disk_full")
            assert device.predictor.active_digest == digest
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(device.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "recipe", "why"),
    [({"seed": "no"}, "tiny", "invalid_option"), (OPTIONS, "other", "not_personalisable")],
    ids=["no labelled data", "another recipe's release"],
)
async def test_the_release_serves_when_there_is_nothing_to_fit(device, options, recipe, why) -> None:
    device.options = options
    digest = device.release(released(recipe=recipe))
    async with device.running():
        await until(lambda: device.now.get("personal_why") == why)
        assert device.predictor.active_digest == digest


async def test_an_agent_whose_owner_wants_it_serves_its_own_head_and_tells_the_coordinator(
    enrolled, cloud, sqlite_database, monkeypatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([SUPPORT, os.environ.get("PYTHONPATH", "")]))
    agent = await enrolled("watch-1", "--recipe", "tiny", "--option", "seed=3", "--personalise")
    settings = agent.state_dir / "agent.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "personalise_after_s": 0}))
    agent.start()
    target = cloud.publish(released())
    await cloud.ends(cloud.roll_out(agent.device_id, target), AssignmentState.SUCCEEDED)

    def told() -> dict:
        with sqlite_database.read() as session:
            return dict(session.get(Device, agent.device_id).attributes)

    await until(lambda: told().get("personal"))
    assert told()["personal_gain"] > 0.1
    await until(lambda: agent.status().get("personal", {}).get("personal"))
    assert agent.status()["active_digest"] == target.digest


def test_personalising_needs_a_recipe() -> None:
    with pytest.raises(InvalidInput) as caught:
        AgentConfig(name="watch", personalise=True)
    assert caught.value.code == "bad_option"


def test_the_release_used_here_is_sound() -> None:
    onnx.checker.check_model(onnx.load_model_from_string(released()))
