"""``docs/recipes.md``, followed to the letter by somebody who has another data set and has never seen Fogline's code."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from left_behind import processes_in
from newcomer import Newcomer, files

JUDGE = Path(__file__).with_name("judge_digits.py")
# Ours, beside the guide's: what the newcomer has before stopping it all.
LOOK = (
    "fogline release show digits-1 --json > release.json",
    "fogline release export digits-1 --output digits.onnx",
    "fogline device list --json > devices.json",
    "fogline rollout list --json > rollouts.json",
)


@pytest.fixture
def newcomer(tmp_path: Path) -> Iterator[Newcomer]:
    newcomer = Newcomer(tmp_path)
    yield newcomer
    for process in processes_in(newcomer.folder):
        process.kill()


@pytest.mark.slow
def test_the_guide_followed_to_the_letter_gives_a_released_int8_student_on_ten_devices(newcomer: Newcomer) -> None:
    newcomer.write_files()
    done = newcomer.follow(before_last=LOOK)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-5000:]}"
    assert processes_in(newcomer.folder) == []

    release = read(newcomer, "release.json")
    assert (release["state"], release["default_variant"]) == ("READY", "student_int8")
    variants = {variant["name"]: variant for variant in release["variants"]}
    assert set(variants) == {"teacher_fp32", "student_fp32", "student_int8"}
    int8 = variants["student_int8"]
    assert hashlib.sha256((newcomer.folder / "digits.onnx").read_bytes()).hexdigest() == int8["digest"]
    assert int8["size"] < variants["teacher_fp32"]["size"] / 3

    devices = read(newcomer, "devices.json")
    assert {device["name"] for device in devices} == {f"pen-{i}" for i in range(10)}
    assert {device["active_digest"] for device in devices} == {int8["digest"]}
    assert [rollout["state"] for rollout in read(newcomer, "rollouts.json")] == ["SUCCEEDED"]
    # The last thing asked of a device: five digits, most of them read as they were written.
    answers = [line for line in done.stdout.splitlines() if line.startswith("wrote ")]
    assert len(answers) == 5
    assert sum(line.split()[1].rstrip(",") == line.split()[3] for line in answers) >= 3

    judged = json.loads(newcomer.python(str(JUDGE), "digits.onnx"))
    assert judged["released"] == pytest.approx(int8["metrics"]["unseen"]["accuracy"], abs=0.01)
    # Chance is 0.1. A pen alone, with as many epochs, comes to 0.64 on average; together they come to 0.89 … 0.93.
    assert judged["alone"] > 0.4, "a yardstick that has not learned proves nothing"
    assert judged["released"] > judged["alone"] + 0.1

    assert_fogline_as_installed(newcomer)


def read(newcomer: Newcomer, name: str):
    return json.loads((newcomer.folder / name).read_text())


def assert_fogline_as_installed(newcomer: Newcomer) -> None:
    """Every process ran Fogline from its wheel, the wheel's files are as built, and the package adds one module."""
    where = newcomer.python("-c", "import fogline_server, fogline_client; print(*fogline_server.__path__)")
    assert Path(where.strip()).parent == newcomer.packages
    (info,) = newcomer.packages.glob("fogline-*.dist-info")
    hashed = [file for file in Distribution.at(info).files or () if file.hash]
    assert len(hashed) > 200
    for file in hashed:
        content = (newcomer.packages / file).read_bytes()
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        assert (file.hash.mode, file.hash.value) == ("sha256", digest), f"{file} is not as it was installed"
    (own,) = newcomer.packages.glob("fogline_digits-*.dist-info")
    modules = {str(file) for file in Distribution.at(own).files or () if file.suffix == ".py"}
    assert modules == {"fogline_digits.py"}
    assert (newcomer.packages / "fogline_digits.py").read_text() == files()["fogline_digits.py"]
