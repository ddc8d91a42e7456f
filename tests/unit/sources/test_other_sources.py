"""Recordings, Python functions and folders of images."""

from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest
from PIL import Image

from fogline_client.sources.base import Sample, load_source
from fogline_shared.errors import FoglineError, InvalidInput


@pytest.fixture
def recording(tmp_path):
    arrays = {
        "b.t": [0.0, 0.2],
        "b.x": [[1.0], [2.0]],
        "a.t": [0.1, 0.2, 0.15],
        "a.x": [[3.0, 0.0], [4.0, 0.0], [5.0, 0.0]],
    }
    np.savez(tmp_path / "recording.npz", **{name: np.array(value) for name, value in arrays.items()})
    return tmp_path / "recording.npz"


def test_sensors_of_a_recording_come_in_the_order_of_their_times(recording):
    samples = load_source("recording", {"path": recording, "speed": "0"}).samples()
    assert [(s.sensor, s.time, float(s.x[0])) for s in samples] == [
        ("b", 0.0, 1.0),
        ("a", 0.1, 3.0),
        ("a", 0.15, 5.0),
        ("a", 0.2, 4.0),
        ("b", 0.2, 2.0),
    ]


def test_a_recording_keeps_its_time_and_stops_when_told(recording):
    begun = time.monotonic()
    assert len(list(load_source("recording", {"path": recording, "speed": 2}).samples())) == 5
    assert time.monotonic() - begun >= 0.1
    stop = threading.Event()
    slow = load_source("recording", {"path": recording, "speed": 0.001}).samples(stop)
    next(slow)
    threading.Timer(0.05, stop.set).start()
    assert list(slow) == []


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"a.t": [0.0]},
        {"a.t": [], "a.x": np.zeros((0, 1))},
        {"a.t": [0.0], "a.x": [1.0]},
        {"a.t": [0.0, np.nan], "a.x": [[1.0], [2.0]]},
        {"a.t": [0.0], "a.x": [["text"]]},
    ],
)
def test_a_file_that_is_no_recording_of_sensors_is_refused(tmp_path, arrays):
    np.savez(tmp_path / "bad.npz", **{name: np.array(value) for name, value in arrays.items()})
    with pytest.raises(InvalidInput) as refused:
        next(load_source("recording", {"path": tmp_path / "bad.npz"}).samples())
    assert refused.value.code == "bad_recording"


def counting():
    yield [1, 2]
    yield Sample(x=np.zeros(1), time=3.0)
    yield "text"


@pytest.mark.parametrize("given", [counting, counting(), "test_functions:counting"])
def test_a_function_an_iterable_or_the_name_of_one(monkeypatch, given):
    monkeypatch.setitem(__import__("sys").modules, "test_functions", __import__(__name__, fromlist=["counting"]))
    source = load_source("callable", {"function": given})
    samples = list(source.samples())
    assert [s.x.tolist() for s in samples] == [[1, 2], [0]]
    assert [s.time for s in samples] == [None, 3.0]
    assert source.flaws == {"bad_sample": 1}


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("no_colon", "bad_function"),
        ("no_such_module:name", "bad_function"),
        ("json:nothing", "bad_function"),
        ("json:__name__", "bad_function"),
        ("", "bad_function"),
        (lambda: 1 / 0, "function_failed"),
        (lambda: 3, "function_failed"),
    ],
)
def test_a_function_that_is_not_there_or_fails(given, code):
    with pytest.raises(FoglineError) as failed:
        list(load_source("callable", {"function": given}).samples())
    assert failed.value.code == code


@pytest.fixture
def images(tmp_path):
    red = np.zeros((4, 6, 3), dtype=np.uint8)
    red[..., 0] = 200
    Image.fromarray(red).save(tmp_path / "2.png")
    Image.fromarray(red // 2).save(tmp_path / "1.ppm")
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "notes.txt").write_text("not looked at")
    return tmp_path


def test_images_are_frames_in_the_order_of_their_names(images):
    source = load_source("image_folder", {"path": images})
    frames = [sample.x for sample in source.samples()]
    assert [(f.shape, f.dtype, f[0].max(), f[1:].max()) for f in frames] == [
        ((3, 4, 6), np.float32, 100, 0),
        ((3, 4, 6), np.float32, 200, 0),
    ]
    assert source.flaws == {"not_an_image": 1}


def test_images_are_resized_made_grey_and_scaled(images):
    options = {"path": images, "width": "3", "height": "2", "grey": "yes", "channels_last": True, "scale": 1 / 255}
    frame = next(load_source("image_folder", options).samples()).x
    assert frame.shape == (2, 3, 1)
    assert frame == pytest.approx(np.full((2, 3, 1), np.float32(30 / 255)), abs=1 / 255)


def test_a_camera_that_writes_files_is_followed(images):
    stop = threading.Event()
    samples = load_source("image_folder", {"path": images, "follow": True}).samples(stop)
    assert len(list(itertools.islice(samples, 2))) == 2
    threading.Timer(0.05, lambda: Image.new("RGB", (6, 4), (7, 0, 0)).save(images / "4.png")).start()
    assert next(samples).x.max() == 7
    stop.set()
    assert list(samples) == []


@pytest.mark.parametrize(
    "options", [{"width": 3}, {"path": 3}, {"path": ""}, {"height": -1}, {"grey": "perhaps"}, {"rate_hz": "often"}]
)
def test_a_wrong_option_of_a_folder_is_named(images, options):
    with pytest.raises(InvalidInput) as refused:
        load_source("image_folder", {"path": images, **options})
    assert refused.value.code == "invalid_source_option"


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInput) as refused:
        list(load_source("image_folder", {"path": tmp_path / "none"}).samples())
    assert refused.value.code == "source_not_readable"
