"""What a newcomer who makes a mistake is told, and where: the command line, the API, the device, the run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from agent_process import agent_cli
from odd_package import install, install_here
from tiny_recipe import Tiny
from training_fleet import FIRST_NODE, Agents, add_devices, create_run, engine

from fogline_client.training.app import build_app
from fogline_client.training.host import TrainingHost
from fogline_server.api.routers import recipes as api
from fogline_server.training import service
from fogline_shared.errors import FoglineError, InvalidInput
from fogline_shared.protocol import TaskOffer, TaskReply
from fogline_shared.recipe import Dataset, Options

SUPPORT = Path(__file__).parents[2] / "support"
FOGLINE = (sys.executable, "-c", "from fogline_server.cli.main import run; run()")
# A recipe on the tiny one with a mistake in it.
MISTAKEN = "from tiny_recipe import Tiny\nclass Odd(Tiny):\n    name = 'odd'\n    {}\n"
RAISES = MISTAKEN.format("def train(self, *args, **kwargs): return unheard_of")
INCOMPLETE = """
from fogline_recipes.classifier import Classifier
class Odd(Classifier):
    name, classes, input_shape = "odd", ("a", "b"), (1,)
    def device_data(self, options): ...
"""


def check(folder: Path, *arguments: str, source: str = "") -> subprocess.CompletedProcess[str]:
    """``fogline recipe check`` where the tiny recipe and, with a source, the odd one are installed."""
    path = [str(SUPPORT), *([install(folder, "odd_recipe:Odd", source)] if source else [])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OMP_NUM_THREADS": "1"}
    command = [*FOGLINE, "recipe", "check", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)


def test_a_good_recipe_is_shown_with_its_data_sizes_and_bytes(tmp_path: Path) -> None:
    done = check(tmp_path, "tiny", "--option", "seed=1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["examples"]["device"] == 64
    assert [size["size"] for size in found["sizes"]] == ["teacher", "student"]
    assert set(found["bytes"]) == {"teacher_fp32", "student_fp32", "student_int8"}


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("nope", "", "error: unknown_recipe: no recipe named 'nope'; known: "),
        ("odd", "import no_such_library\n", "error: broken_recipe: recipe 'odd' does not import: ModuleNotFoundError"),
        ("odd", INCOMPLETE, "error: broken_recipe: recipe 'odd' cannot be constructed"),
        ("odd", "from tiny_recipe import Tiny as Odd\n", "error: broken_recipe: recipe 'odd' calls itself 'tiny'"),
        ("odd", RAISES, "error: broken_recipe: NameError: name 'unheard_of' is not defined"),
    ],
)
def test_check_names_the_mistake_in_its_last_line(tmp_path: Path, name: str, source: str, said: str) -> None:
    done = check(tmp_path, name, "--option", "seed=1", source=source)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(said)
    assert ("Traceback" in done.stderr) == (source == RAISES), "a traceback is for a method that raised"


@pytest.mark.parametrize("option", [["--option", "seed=one"], [], ["--option", "seed"]])
def test_check_takes_a_devices_options(tmp_path: Path, option: list[str]) -> None:
    done = check(tmp_path, "tiny", *option)
    assert (done.returncode, done.stderr.startswith("error: invalid_option: ")) == (2, True)


def test_a_broken_recipe_is_listed_with_its_error_and_starts_no_run(sqlite_database, tmp_path, monkeypatch) -> None:
    install_here(monkeypatch, tmp_path, "odd_recipe:Odd", INCOMPLETE)
    listed = {view.name: view for view in api.list_recipes().items}
    assert "abstract" in (listed["odd"].error or "")
    assert listed["smartwatch"].error is None
    with pytest.raises(InvalidInput) as caught:
        create_run(sqlite_database, recipe="odd")
    assert caught.value.code == "broken_recipe"


def test_a_device_without_the_recipe_keeps_its_token(tmp_path: Path) -> None:
    done = agent_cli("enroll", "token", "--recipe", "nope", "--state-dir", tmp_path / "device")
    assert (done.returncode, "unknown_recipe: no recipe named 'nope'; known: " in done.stderr) == (2, True)
    assert not (tmp_path / "device").exists()


async def test_a_method_that_raises_on_a_device_is_told_and_its_traceback_logged(tmp_path, monkeypatch, capfd) -> None:
    source = MISTAKEN.format("def channel_sums(self, data): return unheard_of")
    path = install(tmp_path / "packages", "odd_recipe:Odd", source)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SUPPORT), path]))
    host = TrainingHost("odd", {"seed": "1"}, tmp_path)
    try:
        _, reply = await host.run(query(), {})
    finally:
        await host.close()
    assert (reply.error_code, "unheard_of" in reply.error_message) == ("training_failed", True)
    assert "odd_recipe.py" in capfd.readouterr().err


def query() -> TaskOffer:
    return TaskOffer(
        task_id="task",
        run_id="run",
        round=0,
        kind="query",
        recipe="odd",
        records_json=json.dumps({"config": {"kind": "config", "values": {"recipe": "odd"}}}),
        blobs=(),
        deadline=0.0,
        group_id="0",
        message_type="query",
        node_id=101,
        max_reply_bytes=1 << 16,
    )


class Empty(Tiny):
    def device_data(self, options: Options) -> Dataset:
        return Dataset(x=np.zeros((0, *self.input_shape), np.float32), y=np.zeros(0, np.int64))


class LastOneEmpty(Agents):
    """As the training child answers: an error of the recipe is a reply with its code."""

    def reply(self, index: int, offer: TaskOffer) -> TaskReply:
        self._apps[-1] = build_app(Empty())
        try:
            return super().reply(index, offer)
        except FoglineError as error:
            return TaskReply(
                task_id=offer.task_id,
                digest="",
                size=0,
                records_json="{}",
                error_code=error.code,
                error_message=error.message,
            )


def test_a_device_without_examples_sits_out_and_the_run_goes_on(sqlite_database, blobs, doorbell) -> None:
    add_devices(sqlite_database, 3)
    run_id, job_id = create_run(sqlite_database, rounds=2, min_devices=3, quorum=0.6)
    with LastOneEmpty(sqlite_database, blobs, doorbell, 3):
        engine(sqlite_database, blobs, doorbell).execute(job_id)
    with sqlite_database.read() as session:
        run = service.get_run(session, run_id)
        updates = service.updates_of(session, run_id)
    assert (run.state, run.rounds_done) == ("SUCCEEDED", 2)
    assert set(run.statistics["samples"]) == {str(FIRST_NODE), str(FIRST_NODE + 1)}
    odd = [u for u in updates if u.device_id == "dev_2"]
    assert {(u.verdict, u.code) for u in odd} == {("ERROR", "empty_dataset")}
    assert {u.round for u in odd} == {0, 1, 2}
    assert {u.verdict for u in updates if u.device_id != "dev_2"} == {"ACCEPTED"}
