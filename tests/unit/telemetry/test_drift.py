"""Input drift: none for inputs like the reference's, seen for each way in which sensors go wrong."""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, replace
from itertools import count

import numpy as np
import pytest
from artifacts import CLASSES, artifact

from fogline_client.inference.predictor import Predictor
from fogline_client.inference.values import Observation
from fogline_client.telemetry.recorder import Recorder
from fogline_shared.drift import FEWEST, MOST_FEATURES, Features, Reference
from fogline_shared.errors import Corrupt
from fogline_shared.manifest import Manifest
from fogline_shared.protocol import TelemetryWindow
from fogline_shared.wire import device_frame_from_pb, device_frame_to_pb

DIGEST = "a" * 64
SHAPE = (3, 40)
SHAPES = [(6, 100), (1, 128), (3, 48, 48), (10,), (40,), (64, 20)]


def signals(seed: int, n: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Channels of different offsets and scales, around levels that differ from example to example."""
    rng, tail = np.random.default_rng(seed), (1,) * (len(shape) - 1)
    channel = np.arange(shape[0]).reshape(-1, *tail)
    level = rng.normal(size=(n, shape[0], *tail))
    loud = rng.uniform(0.5, 1.5, size=(n, shape[0], *tail))
    values = 100.0 * channel + 10.0 ** -channel.clip(0, 3) * (level + loud * rng.normal(size=(n, *shape)))
    return values.astype(np.float32)


def manifest(shape: tuple[int, ...] = SHAPE, **changes: object) -> Manifest:
    return Manifest(
        recipe="toy", variant="student_fp32", input_name="input", input_shape=shape, output_name="logits",
        classes=CLASSES, reference=Reference.of(signals(0, 512, shape)), **changes,
    )  # fmt: skip


def recorder() -> Recorder:
    """One that looks at every input."""
    return Recorder(now=0.0, input_every_s=0.0)


def feed(recorder: Recorder, examples: np.ndarray, of: Manifest, digest: str = DIGEST) -> None:
    for x in examples:
        recorder.observe(Observation(digest, 100.0, 0.9, 0, "", None, of, x))


def window(examples: np.ndarray, of: Manifest | None = None) -> TelemetryWindow:
    taking = recorder()
    feed(taking, examples, of or manifest())
    (cut,) = taking.cut(now=1.0, boot_id="boot")
    return cut


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_distribution_does_not_drift_and_another_does(shape: tuple[int, ...]) -> None:
    described = manifest(shape)
    same, other = signals(1, 256, shape), signals(2, 256, shape)
    other[:, 0] += 3.0
    assert max(window(same, described).drift.values()) < 0.2
    assert window(other, described).drift_inputs == 256
    found = window(other, described).drift
    assert max(found, key=found.__getitem__) in ("mean_0", "value_0")
    assert max(found.values()) > 0.25


def shifted(x: np.ndarray) -> None:
    x[:, 1] += 0.3


def scaled(x: np.ndarray) -> None:
    x[:, 1] *= 1.02


def stuck(x: np.ndarray) -> None:
    x[:, 1] = x[0, 1, 0]


def noisy(x: np.ndarray) -> None:
    x[:, 1] += 0.3 * np.random.default_rng(9).normal(size=x[:, 1].shape)


def saturated(x: np.ndarray) -> None:
    x[:, 1] = np.inf


def silent(x: np.ndarray) -> None:
    x[:, 1] = 0.0


@pytest.mark.parametrize("fault", [shifted, scaled, stuck, noisy, saturated, silent])
def test_a_faulty_sensor_is_named(fault) -> None:
    x = signals(1, 256)
    fault(x)
    found = window(x).drift
    assert max(found["mean_1"], found["spread_1"]) > 0.25
    assert max(value for name, value in found.items() if not name.endswith("_1")) < 0.2


def test_windows_with_few_inputs_say_nothing_until_they_are_enough_together() -> None:
    taking, described = recorder(), manifest()
    x = signals(3, FEWEST)
    for start, stop in ((0, 80), (80, 160), (160, FEWEST - 1)):
        feed(taking, x[start:stop], described)
        (quiet,) = taking.cut(now=1.0, boot_id="boot")
        assert (dict(quiet.drift), quiet.drift_inputs) == ({}, 0)
    feed(taking, x[FEWEST - 1 :], described)
    (told,) = taking.cut(now=2.0, boot_id="boot")
    assert told.drift_inputs == FEWEST
    assert told.drift == window(x).drift, "parts add up to the whole"
    feed(taking, x[:10], described)
    (fresh,) = taking.cut(now=3.0, boot_id="boot")
    assert not fresh.drift, "inputs that were told of count no more"


def test_artifacts_are_told_apart_and_forgotten_when_they_are_many() -> None:
    taking, described, x = recorder(), manifest(), signals(4, 2 * FEWEST)
    feed(taking, x[:FEWEST], described, "a" * 64)
    feed(taking, x[: FEWEST - 1], described, "b" * 64)
    first, second = taking.cut(now=1.0, boot_id="boot")
    assert (first.drift_inputs, second.drift_inputs) == (FEWEST, 0)
    for number in range(5):
        feed(taking, x[:1], described, f"{number}" * 64)
        taking.cut(now=2.0, boot_id="boot")
    feed(taking, x[:1], described, "b" * 64)
    (late,) = taking.cut(now=3.0, boot_id="boot")
    assert late.drift_inputs == 0


def test_of_fast_inputs_some_are_looked_at_and_memory_is_bounded() -> None:
    ticks = count()
    taking = Recorder(now=0.0, input_every_s=1.0, clock=lambda: next(ticks) / 8)
    feed(taking, signals(5, 2500), manifest())
    (cut,) = taking.cut(now=1.0, boot_id="boot")
    assert (cut.predictions, cut.drift_inputs) == (2500, 313)
    wide = (8, 256)
    assert window(signals(6, 2 * FEWEST, wide), manifest(wide)).drift_inputs == 0, "as much as 1 MiB holds"


def test_predictions_are_counted_whichever_way_they_are_asked_for(tmp_path) -> None:
    described = manifest()
    path = tmp_path / "model.onnx"
    path.write_bytes(artifact(shape=SHAPE, reference=described.reference))
    taking = recorder()
    predictor = Predictor(observe=taking.observe)
    predictor.swap(predictor.load(path))
    x = signals(7, 300)
    for example in x[:100]:
        predictor.predict(example.tolist())
    for example in x[100:200]:
        predictor.predict(example[None])
    predictor.predict_many(x[200:])
    (cut,) = taking.cut(now=1.0, boot_id="boot")
    assert cut.drift_inputs == 300
    assert cut.drift == window(x, described).drift


def test_a_reference_is_small_and_holds_no_example() -> None:
    for shape in SHAPES:
        found = Reference.of(signals(0, 512, shape))
        assert found is not None
        assert len(found.edges) == len(Features(shape).names) <= MOST_FEATURES
        assert len(zlib.compress(json.dumps(asdict(found)).encode())) < 1000
    assert Reference.of(signals(0, FEWEST - 1)) is None
    damaged = signals(0, 512)
    damaged[3, 0, 0] = np.nan
    assert Reference.of(damaged) is None


def test_manifests_of_before_are_read_and_read_those_of_now() -> None:
    """An older agent picks the members it knows, as ours does with one it does not."""
    now = manifest()
    assert Manifest.from_json(now.to_json()) == now
    before = replace(now, reference=None)
    assert "reference" not in before.to_json(), "an artifact without one has the bytes it always had"
    assert Manifest.from_json(before.to_json()).reference is None
    raw = json.loads(now.to_json())
    assert Manifest.from_json(json.dumps(raw | {"of_tomorrow": 1})) == now


@pytest.mark.parametrize(
    "reference",
    [
        5, {}, {"edges": [], "counts": []}, {"edges": [[0] * 7] * 6, "counts": [[1] * 8] * 5},
        {"edges": [[0] * 6] * 6, "counts": [[1] * 8] * 6}, {"edges": [[0] * 7] * 6, "counts": [[1] * 7] * 6},
        {"edges": [[1, 0] + [2] * 5] * 6, "counts": [[1] * 8] * 6}, {"edges": [[1e999] * 7] * 6, "counts": [[1] * 8] * 6},
        {"edges": [[0] * 7] * 6, "counts": [[-1] * 8] * 6}, {"edges": [[0] * 7] * 6, "counts": [[0] * 8] * 6},
        {"edges": [["x"] * 7] * 6, "counts": [[1] * 8] * 6}, {"edges": [[0] * 7] * 6, "counts": [[1e999] * 8] * 6},
    ],
)  # fmt: skip
def test_a_reference_that_is_none_is_a_bad_manifest(reference) -> None:
    raw = json.loads(manifest().to_json()) | {"reference": reference}
    with pytest.raises(Corrupt, match="bad_manifest"):
        Manifest.from_json(json.dumps(raw))


def test_agents_of_before_say_nothing_of_drift_on_the_wire() -> None:
    told = window(signals(1, 256))
    assert device_frame_from_pb(device_frame_to_pb(told)) == told
    message = device_frame_to_pb(told)
    message.telemetry.ClearField("drift")
    message.telemetry.ClearField("drift_inputs")
    assert device_frame_from_pb(message) == replace(told, drift={}, drift_inputs=0)
