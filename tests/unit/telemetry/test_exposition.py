"""The agent's own figures, as Prometheus' parser reads them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from artifacts import SHAPE, artifact, example
from prometheus_client.parser import text_string_to_metric_families

from fogline_client.inference.predictor import Predictor
from fogline_client.telemetry.exposition import Exposition
from fogline_client.telemetry.recorder import Recorder
from fogline_client.telemetry.spool import Spool
from fogline_shared.drift import Reference
from fogline_shared.errors import Corrupt


def samples(text: str) -> dict[str, float]:
    """By name and labels."""
    return {
        ",".join([sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class Device:
    """A predictor with its telemetry, every input looked at."""

    def __init__(self, tmp_path: Path) -> None:
        self._path = tmp_path
        self.recorder = Recorder(now=0.0, input_every_s=0.0)
        self.spool = Spool(tmp_path / "spool.sqlite", now=1.0, capacity=2)
        self.predictor = Predictor(observe=self.recorder.observe)
        self.exposition = Exposition(self.recorder, self.spool, self.predictor)

    def serve(self, content: bytes) -> str:
        path = self._path / "model.onnx"
        path.write_bytes(content)
        self.predictor.swap(self.predictor.load(path))
        return self.predictor.active_digest

    def cut(self) -> None:
        for window in self.recorder.cut(now=1.0, boot_id="boot"):
            self.spool.put(window)

    def read(self) -> dict[str, float]:
        return samples(self.exposition.text())


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def test_before_any_model_everything_is_zero_and_quantiles_are_left_out(device: Device) -> None:
    assert device.read() == {
        "fogline_agent_predictions_total": 0, "fogline_agent_errors_total": 0, "fogline_agent_latency_seconds_sum": 0,
        "fogline_agent_latency_seconds_count": 0, "fogline_agent_confidence_sum": 0,
        "fogline_agent_confidence_count": 0, "fogline_agent_spool_dropped_total": 0, "fogline_agent_spool_waiting": 0,
    }  # fmt: skip


def test_counts_go_on_over_windows_and_quantiles_are_of_late(device: Device) -> None:
    digest = device.serve(artifact(recipe='a"b\\c'))
    for _ in range(3):
        device.predictor.predict(example(1))
    first = device.read()
    assert first["fogline_agent_predictions_total"] == first["fogline_agent_latency_seconds_count"] == 3
    assert 0 < first["fogline_agent_latency_seconds,quantile=0.5"] < 1
    assert first["fogline_agent_confidence,quantile=0.5"] == pytest.approx(0.98, abs=0.06)
    assert first[f'fogline_agent_active_info,digest={digest},recipe=a"b\\c,variant=student_fp32'] == 1
    device.cut()
    device.predictor.predict(example(1))
    assert device.read()["fogline_agent_latency_seconds_count"] == 4
    device.cut()
    device.cut()
    quiet = device.read()
    assert quiet["fogline_agent_predictions_total"] == quiet["fogline_agent_confidence_count"] == 4
    assert "fogline_agent_confidence,quantile=0.5" not in quiet
    assert quiet["fogline_agent_confidence_sum"] == pytest.approx(4 * first["fogline_agent_confidence_sum"] / 3)
    assert quiet["fogline_agent_spool_waiting"] == 2
    for _ in range(2):
        device.predictor.predict(example(1))
        device.cut()
    assert device.read()["fogline_agent_spool_dropped_total"] == 2


def test_nobody_is_more_than_certain(device: Device) -> None:
    """A bucket's middle may lie above the largest value that there is."""
    device.serve(artifact(scale=50.0))
    device.predictor.predict(example(1))
    assert device.read()["fogline_agent_confidence,quantile=0.99"] == 1


def test_errors_are_counted(device: Device) -> None:
    device.serve(artifact())
    assert device.predictor.model is not None
    device.predictor.model.stop()
    with pytest.raises(Corrupt):
        device.predictor.predict_many(example(1)[None])
    seen = device.read()
    assert (seen["fogline_agent_predictions_total"], seen["fogline_agent_errors_total"]) == (1, 1)
    assert (seen["fogline_agent_latency_seconds_count"], seen["fogline_agent_confidence_count"]) == (1, 0)


def test_drift_is_that_of_the_active_artifact(device: Device) -> None:
    rng = np.random.default_rng(0)
    reference = Reference.of(rng.normal(size=(400, *SHAPE)).astype(np.float32))
    device.serve(artifact(reference=reference))
    x = rng.normal(size=(250, *SHAPE)).astype(np.float32)
    x[:, 2] += 4.0
    device.predictor.predict_many(x)
    assert "fogline_agent_drift_inputs" not in device.read(), "the window is not over"
    device.cut()
    seen = device.read()
    assert seen["fogline_agent_drift_inputs"] == 250
    assert seen["fogline_agent_drift_psi,feature=mean_2"] > 1 > seen["fogline_agent_drift_psi,feature=mean_0"]
    device.serve(artifact(scale=6.0))
    assert "fogline_agent_drift_inputs" not in device.read()


def test_a_spool_that_cannot_be_read_costs_its_own_figure_alone(device: Device, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "spool.sqlite") as other:
        other.execute("DROP TABLE frames")
    seen = device.read()
    assert "fogline_agent_spool_waiting" not in seen
    assert seen["fogline_agent_predictions_total"] == 0
