"""``fogline simulate`` with device classes of different sizes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fogline_server.cli.main import app
from fogline_shared.errors import InvalidInput

MIXED = ("--devices", "6", "--rounds", "2", "--class", "large=0.5", "--ensemble", "steps=20", "--processes", "1")


def simulate(folder: Path, *words: str) -> dict:
    done = CliRunner().invoke(app, ["simulate", "tiny", *words, "--reports", str(folder)])
    if done.exception is not None:
        raise done.exception
    return json.loads((folder / "report.json").read_text())


def test_shares_of_classes_train_their_sizes_and_the_report_tells_of_the_control(tmp_path: Path) -> None:
    facts = simulate(tmp_path, *MIXED, "--size-of", "large=teacher")
    assert facts["committed"] == 2
    last = facts["rounds"][-1]
    assert last["ensemble"]["ensemble_members"] == last["accepted"] == 6
    assert facts["distillation"]["control"] == last["ensemble"]["control_holdout_accuracy"]
    assert facts["distillation"]["distilled"] == last["holdout"]["accuracy"]
    assert simulate(tmp_path, *MIXED, "--size-of", "large=teacher") == facts
    assert simulate(tmp_path, *MIXED)["distillation"] is None


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--size-of", "jetson=teacher"), "unknown_device_class"),
        (("--size-of", "large=huge"), "unknown_size"),
        (("--size-of", "large=teacher", "--ensemble", "fusion=best"), "invalid_ensemble"),
        (("--class", "small=0.6"), "invalid_simulation"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(tmp_path: Path, words: tuple[str, ...], code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        simulate(tmp_path, *MIXED, *words)
    assert caught.value.code == code
