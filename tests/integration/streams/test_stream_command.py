"""``fogline-agent stream`` and ``ring``: exit codes, signals, the active model of a folder."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from artifacts import artifact, example
from typer.testing import CliRunner

from fogline_client.cli import app
from fogline_client.slots import Slots

AGENT = str(Path(sys.executable).with_name("fogline-agent"))
FRAMES = '[[sources]]\nkind = "json_lines"\n[[sinks]]\nkind = "json_lines"\n[[sinks]]\nkind = "ring"\npath = "ring"\nslots = 2\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pipeline.toml").write_text(FRAMES)
    (tmp_path / "model.onnx").write_bytes(artifact())
    return tmp_path


def agent(*words):
    """The command in this process."""
    return CliRunner().invoke(app, words)


def line(label, **more):
    return json.dumps({"x": example(label).tolist(), **more}) + "\n"


def activate(state_dir, content):
    """Make these bytes the active model of an agent's folder, as an update does."""
    slots = Slots(state_dir / "slots")
    digest = hashlib.sha256(content).hexdigest()
    (state_dir / "in").write_bytes(content)
    slots.activate(slots.stage(state_dir / "in", digest))


def test_lines_in_answers_out_and_the_ring_remembers(folder):
    """On a slim device: neither Pillow nor paho-mqtt is there, or asked for."""
    given = line(0, t=1) + "no json\n" + line(1, t=2) + line(2, t=3)
    slim = "import sys; sys.modules |= dict.fromkeys(('PIL', 'paho')); from fogline_client.cli import run; run()"
    command = [sys.executable, "-c", slim, "stream", "--pipeline", "pipeline.toml", "--model", "model.onnx"]
    done = subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, timeout=60, check=True)
    assert [json.loads(each)["name"] for each in done.stdout.splitlines()] == ["walk", "run", "rest"]
    assert done.stderr.startswith("ended: samples 3; windows 3; predictions 3; delivered 3; dropped source.not_json 1;")
    kept = agent("ring", "ring").stdout.splitlines()
    assert [json.loads(each)["time"] for each in kept] == [2, 3]
    assert agent("ring", "ring", "--limit", "1").stdout.splitlines() == kept[1:]
    assert agent("ring", "pipeline.toml").exit_code == 1


def test_a_swap_in_the_agents_folder_is_a_swap_in_the_stream_and_a_signal_ends_it(folder):
    (folder / "state").mkdir()
    activate(folder / "state", artifact())
    command = [AGENT, "stream", "--pipeline", "pipeline.toml", "--state-dir", "state", "--json"]
    running = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def ask(label):
        running.stdin.write(line(label))
        running.stdin.flush()
        return json.loads(running.stdout.readline())["name"]

    assert ask(0) == "walk"
    activate(folder / "state", artifact(shift=1))
    deadline = time.monotonic() + 20
    while (name := ask(0)) == "walk" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert name == "run"
    running.send_signal(signal.SIGTERM)
    out, err = running.communicate(timeout=30)
    summary = json.loads(err.splitlines()[-1])
    assert running.returncode == 0
    assert out == ""
    assert summary["predictions"] == summary["delivered"] == summary["samples"] >= 2


@pytest.mark.parametrize(
    ("pipeline", "words", "exit_code", "code"),
    [
        ("[windows]\n", (), 2, "invalid_pipeline"),
        ('[[sources]]\nkind = "json_lines"\npath = "nowhere"\n', ("--model", "model.onnx"), 2, "source_not_readable"),
        (FRAMES, ("--model", "nowhere.onnx"), 2, "model_not_readable"),
        (FRAMES, ("--state-dir", "nowhere"), 2, "not_configured"),
        (FRAMES, ("--model", "pipeline.toml"), 1, "not_a_model"),
        (FRAMES.replace('"ring"\nslots', '"nowhere/ring"\nslots'), ("--model", "model.onnx"), 2, "invalid_pipeline"),
    ],
)
def test_what_cannot_work_ends_with_a_code(folder, pipeline, words, exit_code, code):
    (folder / "pipeline.toml").write_text(pipeline)
    done = agent("stream", "--pipeline", "pipeline.toml", "--json", *words)
    assert done.exit_code == exit_code
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == code


def test_a_check_prints_the_plan_and_runs_nothing(folder):
    done = agent("stream", "--pipeline", "pipeline.toml", "--check")
    assert done.exit_code == 0
    assert done.stdout.startswith("source ")
    assert not (folder / "ring").exists()


@pytest.mark.parametrize(("kind", "extra"), [("image_folder", "images"), ("mqtt", "mqtt")])
def test_an_extra_that_is_not_installed_is_named(folder, monkeypatch, kind, extra):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "paho", None)
    option = "path" if kind == "image_folder" else "topic"
    (folder / "pipeline.toml").write_text(f'[[sources]]\nkind = "{kind}"\n{option} = "a"\n')
    done = agent("stream", "--pipeline", "pipeline.toml", "--check")
    assert done.exit_code == 3
    assert f"install fogline[{extra}]" in done.stderr


def test_nobody_reads_the_answers_any_more(folder):
    """A closed pipe costs the sink its answers, each counted, and not the others theirs."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [AGENT, "stream", "--pipeline", "pipeline.toml", "--model", "model.onnx", "--json"],
        cwd=folder,
        input=line(0) + line(1),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert json.loads(done.stderr.splitlines()[-1])["dropped"]["sink.json_lines"] == 2
    assert len(agent("ring", "ring").stdout.splitlines()) == 2
