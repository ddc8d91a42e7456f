"""An agent of another version meets a folder: newer ones are refused and left alone, older ones are brought up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from agent_process import AgentProcess, until
from artifacts import artifact, example
from disk import watched
from lone_device import LoneDevice
from typer.testing import CliRunner

from fogline_client import durable, state_format
from fogline_client.cli import app
from fogline_client.config import StateDir
from fogline_client.inference.predictor import Predictor
from fogline_client.state_format import FORMAT, bring_up, number_of
from fogline_server.devices.authority import CertificateAuthority
from fogline_shared.errors import Conflict, Corrupt, Exhausted


@pytest.fixture
def device(tmp_path: Path) -> LoneDevice:
    return LoneDevice.make(tmp_path / "watch-1", CertificateAuthority.open(tmp_path / "keys", "127.0.0.1"))


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", [["run"], ["enroll", "TOKEN", "--replace"]])
def test_folder_of_a_newer_agent_is_refused_and_left_as_it_is(device: LoneDevice, command: list[str]) -> None:
    model = device.install(artifact())
    durable.write_json(device.state.format, {"format": FORMAT + 1, "agent": "9.9.9"})
    device.state.config.write_text('{"what": "an older agent cannot read"}')
    before = content(device.root)
    done = CliRunner().invoke(app, [*command, "--state-dir", str(device.root)])
    assert done.exit_code == 5
    assert "state_too_new" in done.stderr
    assert "9.9.9" in done.stderr
    assert content(device.root) == before
    examined = CliRunner().invoke(app, ["doctor", "--offline", "--json", "--state-dir", str(device.root)])
    assert examined.exit_code == 1
    assert "state_too_new" in {finding["code"] for finding in json.loads(examined.stdout)["findings"]}
    assert model.exists()
    with Predictor.open(device.root) as predictor:
        assert predictor.predict(example(2)).label == 2, "what serves goes on"


async def test_folder_from_before_there_were_numbers_is_taken_over(device: LoneDevice) -> None:
    device.install(artifact())
    assert number_of(device.state) == 0
    agent = AgentProcess(device.root)
    agent.start()
    try:
        await until(lambda: agent.status().get("url"))
        assert agent.ask(2)["label"] == [2]
        assert agent.status()["generation"] == 3, "the journal was read"
    finally:
        agent.stop()
    assert number_of(device.state) == FORMAT


def test_new_folder_is_of_this_number(tmp_path: Path) -> None:
    state = StateDir(root=tmp_path)
    bring_up(state)
    assert json.loads(state.format.read_text())["format"] == FORMAT


def rename(state: StateDir) -> None:
    """Settings move to another file, and mean the same."""
    if (raw := durable.read_json(state.config, code="bad_config")) is not None:
        durable.write_json(state.root / "settings.json", raw)
        state.config.unlink()


def mark(state: StateDir) -> None:
    raw = durable.read_json(state.root / "settings.json", code="bad_config")
    durable.write_json(state.root / "settings.json", raw | {"marked": True})


def test_old_folder_is_brought_up_step_by_step_wherever_the_power_is_cut(device: LoneDevice, tmp_path: Path) -> None:
    steps = {1: rename, 2: mark}
    before = json.loads(device.state.config.read_text())
    with watched(device.root) as disk:
        bring_up(device.state, known=3, steps=steps)
    assert len(disk.left) > 10
    for number, left in enumerate(disk.left):
        state = StateDir(root=left.put(tmp_path / f"cut-{number}"))
        bring_up(state, known=3, steps=steps)
        assert number_of(state, known=3) == 3, left
        assert json.loads((state.root / "settings.json").read_text()) == before | {"marked": True}, left
        assert not state.config.exists()


def test_step_that_fails_is_taken_again(device: LoneDevice) -> None:
    def full(state: StateDir) -> None:
        raise Exhausted("disk_full", "no room")

    with pytest.raises(Exhausted):
        bring_up(device.state, known=2, steps={1: full})
    assert number_of(device.state) == 1
    bring_up(device.state, known=3, steps={1: rename, 2: mark})
    assert number_of(device.state, known=3) == 3


def test_full_disk_does_not_keep_an_unchanged_folder_from_its_work(device: LoneDevice) -> None:
    device.state.format.with_name("format.json.new").mkdir()  # so that the number cannot be written
    bring_up(device.state)
    assert number_of(device.state) == 0


@pytest.mark.parametrize("text", ["", "[]", '{"format": "1"}', '{"format": -1}', '{"format": true}'])
def test_number_that_is_none(device: LoneDevice, text: str) -> None:
    device.state.format.write_text(text)
    with pytest.raises(Corrupt, match="bad_state_format"):
        number_of(device.state)


def test_no_number_is_skipped() -> None:
    assert set(state_format.STEPS) <= set(range(FORMAT))


def test_refusal_says_what_both_know(device: LoneDevice) -> None:
    durable.write_json(device.state.format, {"format": 7})
    with pytest.raises(Conflict) as refused:
        number_of(device.state)
    assert refused.value.detail == {"format": 7, "known": FORMAT}
