"""A predictor in another process than the agent follows the agent's active slot."""

from __future__ import annotations

import hashlib
import json
import time

import pytest
from artifacts import artifact, example

from fogline_client import Predictor
from fogline_shared.errors import Unavailable


def _activate(state_dir, slot: str, content: bytes, digest: str | None = None) -> str:
    (state_dir / "slots" / slot).mkdir(parents=True, exist_ok=True)
    (state_dir / "slots" / slot / "model.onnx").write_bytes(content)
    digest = digest or hashlib.sha256(content).hexdigest()
    temporary = state_dir / "slots" / "active.new"
    temporary.write_text(json.dumps({"digest": digest, "slot": slot}))
    temporary.replace(state_dir / "slots" / "active")
    return digest


def _wait_for(predictor: Predictor, digest: str) -> None:
    deadline = time.monotonic() + 5
    while predictor.active_digest != digest:
        assert time.monotonic() < deadline, "the predictor did not follow"
        time.sleep(0.01)


def test_it_serves_what_is_active_and_follows_swaps(tmp_path):
    first = _activate(tmp_path, "A", artifact())
    with Predictor.open(tmp_path, poll_s=0.02) as predictor:
        assert predictor.active_digest == first
        assert predictor.predict(example(0)).label == 0
        _wait_for(predictor, _activate(tmp_path, "B", artifact(shift=1)))
        assert predictor.predict(example(0)).label == 1
    with pytest.raises(Unavailable):
        predictor.predict(example(0))


def test_a_device_without_a_model_gets_one_later(tmp_path):
    with Predictor.open(tmp_path, poll_s=0.02) as predictor:
        with pytest.raises(Unavailable):
            predictor.predict(example(0))
        _wait_for(predictor, _activate(tmp_path, "A", artifact()))


@pytest.mark.parametrize("pointer", ["", "{", "[]", '{"digest": "x"}', '{"digest": "x", "slot": "../../etc"}'])
def test_a_damaged_pointer_leaves_the_old_model_serving(tmp_path, pointer):
    digest = _activate(tmp_path, "A", artifact())
    with Predictor.open(tmp_path, poll_s=0.01) as predictor:
        (tmp_path / "slots" / "active").write_text(pointer)
        time.sleep(0.1)
        assert predictor.active_digest == digest
        assert predictor.predict(example(0)).label == 0


def test_a_damaged_artifact_leaves_the_old_model_serving_until_a_sound_one_comes(tmp_path):
    digest = _activate(tmp_path, "A", artifact())
    with Predictor.open(tmp_path, poll_s=0.01) as predictor:
        _activate(tmp_path, "B", artifact(shift=1)[:-9], digest="0" * 64)
        time.sleep(0.1)
        assert predictor.active_digest == digest
        _wait_for(predictor, _activate(tmp_path, "B", artifact(shift=1)))
