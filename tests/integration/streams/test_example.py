"""``examples/stream``, as its README says: two sensors of different rates, replayed, fused and answered."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import plain_windows
import pytest

from fogline_client import Predictor

EXAMPLE = Path(__file__).resolve().parents[3] / "examples/stream"
COMMAND = [str(Path(sys.executable).with_name("fogline-agent")), "stream", "--pipeline", "pipeline.toml"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The example's folder, made."""
    folder = tmp_path_factory.mktemp("example")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    subprocess.run([sys.executable, "make.py"], cwd=folder, check=True, timeout=60)
    return folder


def run(folder, *, speed, deadline_ms=0, more=()):
    """The example at another speed, with --json; its answers and its summary."""
    told = (EXAMPLE / "pipeline.toml").read_text()
    told = re.sub(r"speed = \S+", f"speed = {speed}", told)
    told = re.sub(r"deadline_ms = \S+", f"deadline_ms = {deadline_ms}", told)
    (folder / "pipeline.toml").write_text(told)
    command = [*COMMAND, "--model", "model.onnx", "--json", "--every", "0", *more]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()], json.loads(done.stderr.splitlines()[-1])


def offline(folder):
    """The windows of the whole file, by definition."""
    with np.load(folder / "recording.npz") as file:
        recordings = {
            name: [(float(t), [float(v) for v in x]) for t, x in zip(file[f"{name}.t"], file[f"{name}.x"], strict=True)]
            for name in ("accelerometer", "gyroscope")
        }
    names = list(recordings)
    windows, skipped = plain_windows.windows(
        recordings,
        rate_hz=50,
        length=64,
        hop=32,
        fusions=dict.fromkeys(names, "linear"),
        gaps=dict.fromkeys(names, 0.1),
        holds=dict.fromkeys(names, 0.0),
    )
    return windows, skipped, sum(map(len, recordings.values()))


def test_the_stream_answers_as_the_whole_file_would(folder):
    answers, summary = run(folder, speed=0)
    windows, skipped, samples = offline(folder)
    assert skipped == 4
    assert (summary["samples"], summary["windows"]) == (samples, len(windows))
    assert summary["dropped"] == {"window.missing.gyroscope": skipped}
    assert summary["predictions"] == summary["delivered"] == len(answers) == len(windows)
    predictor, mean = Predictor.from_file(folder / "model.onnx"), None
    for answer, (end, x) in zip(answers, windows, strict=True):
        fresh = predictor.predict(x).probabilities
        mean = fresh if mean is None else 0.6 * fresh + 0.4 * mean
        assert answer["time"] == end
        assert list(answer["scores"].values()) == pytest.approx(mean, abs=2e-6)
        assert answer["name"] == (("still", "wave", "turn")[mean.argmax()] if mean.max() >= 0.5 else "")
    assert {answer["name"] for answer in answers} >= {"still", "wave", "turn"}


def test_a_replay_keeps_the_time_of_its_recording(folder):
    """Forty times as fast: 24 seconds take 0.6."""
    begun = time.monotonic()
    answers, summary = run(folder, speed=40)
    assert time.monotonic() - begun > 24 / 40
    assert len(answers) == summary["windows"] == 32


def test_the_readme_is_true(folder):
    readme = (EXAMPLE / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=True
    )
    *answers, summary = done.stdout.splitlines()
    assert len(answers) == 32
    assert summary.startswith(
        "samples 3580; windows 32; predictions 32; delivered 32; dropped window.missing.gyroscope 4"
    )
    assert len(readme.splitlines()) < 60
