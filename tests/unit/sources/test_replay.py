"""Replaying a recording into a predictor."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
from artifacts import artifact, example

from fogline_client import Observation, Predictor
from fogline_client.sources.base import feed, load_source
from fogline_shared.errors import InvalidInput


@pytest.fixture
def recording(tmp_path):
    path = tmp_path / "recording.npz"
    np.savez(path, x=np.stack([example(i) for i in range(4)]), y=np.arange(4))
    return path


@pytest.fixture
def predictor(tmp_path):
    (tmp_path / "model.onnx").write_bytes(artifact())
    observed: list[Observation] = []
    predictor = Predictor.from_file(tmp_path / "model.onnx", observe=observed.append)
    predictor.observed = observed
    return predictor


def test_a_recording_feeds_examples_and_truths_in_order(recording, predictor):
    source = load_source("replay", {"path": recording, "rate_hz": "0", "loop": "false"})
    fed = feed(source, predictor, threading.Event())
    assert (fed.answered, fed.failed, fed.late) == (4, 0, 0)
    assert [(o.label, o.truth) for o in predictor.observed] == [(i, i) for i in range(4)]


def test_it_loops_and_can_keep_labels_to_itself(recording):
    source = load_source("replay", {"path": str(recording), "labels": "no"})
    samples = list(itertools.islice(source.samples(), 10))
    assert [int(s.x.reshape(-1).argmax()) for s in samples] == [i % 4 for i in range(10)]
    assert {s.truth for s in samples} == {None}


def test_it_keeps_its_rate_and_stops_when_told(recording, predictor):
    source = load_source("replay", {"path": recording, "rate_hz": 100})
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    started = time.monotonic()
    fed = feed(source, predictor, stop)
    assert time.monotonic() - started < 2.0
    assert 5 <= fed.answered <= 51


def test_a_device_that_cannot_keep_up_skips_instead_of_lagging(recording, predictor):
    predictor.observe = lambda _: time.sleep(0.02)
    source = load_source("replay", {"path": recording, "rate_hz": 1000})
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    fed = feed(source, predictor, stop)
    assert fed.late > fed.answered > 2


def test_no_model_yet_does_not_end_the_stream(recording):
    source = load_source("replay", {"path": recording, "rate_hz": 0, "loop": False})
    fed = feed(source, Predictor(), threading.Event())
    assert (fed.answered, fed.failed) == (0, 4)


@pytest.mark.parametrize(
    "options", [{"rate_hz": "fast"}, {"rate_hz": -1}, {"rate_hz": "nan"}, {"loop": "maybe"}, {"speed": 1}]
)
def test_a_bad_option_is_named(recording, options):
    with pytest.raises(InvalidInput) as refused:
        load_source("replay", {"path": recording} | options)
    assert refused.value.code == "invalid_source_option"


def test_an_unknown_source_names_the_known():
    with pytest.raises(InvalidInput) as refused:
        load_source("oracle", {})
    assert (refused.value.code, "replay" in refused.value.message) == ("unknown_source", True)


@pytest.mark.parametrize(
    "arrays",
    [
        {"z": np.zeros(3)},
        {"x": np.zeros(3)},
        {"x": np.zeros((0, 3, 8))},
        {"x": np.zeros((3, 8)), "y": np.zeros(2)},
        {"x": np.array([object()], dtype=object)},
    ],
)
def test_a_file_that_is_no_recording_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(InvalidInput) as refused:
        next(load_source("replay", {"path": tmp_path / "bad.npz"}).samples())
    assert refused.value.code == "bad_recording"


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 truncated"])
def test_foreign_bytes_are_refused(tmp_path, content):
    (tmp_path / "bad.npz").write_bytes(content)
    with pytest.raises(InvalidInput) as refused:
        next(load_source("replay", {"path": tmp_path / "bad.npz"}).samples())
    assert refused.value.code == "bad_recording"


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidInput):
        next(load_source("replay", {"path": tmp_path / "none.npz"}).samples())
