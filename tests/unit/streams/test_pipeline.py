"""Whole pipelines in this process: samples in, answers out, everything counted."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest
from artifacts import CLASSES, artifact, example

from fogline_client import Predictor
from fogline_client.sources.base import Sample, load_source
from fogline_client.streams.pipeline import Limits, Pipeline
from fogline_client.streams.sinks.base import load_sink
from fogline_client.streams.windows import Sensor, Windows
from fogline_shared.errors import InvalidInput

REJECT = Limits(when_full="reject", queue=4)


@pytest.fixture
def predictor(tmp_path):
    (tmp_path / "model.onnx").write_bytes(artifact())
    return Predictor.from_file(tmp_path / "model.onnx")


def of(items):
    return load_source("callable", {"function": items})


def into(answers):
    return load_sink("callback", {"function": answers.append})


def frames(*labels, start=0.0):
    return [Sample(x=example(label), time=start + i) for i, label in enumerate(labels)]


def test_each_sample_is_a_frame_where_there_are_no_windows(predictor):
    answers = []
    pipeline = Pipeline(predictor, sources=[("", of(frames(0, 1, 2, 3)))], sinks=[into(answers)], limits=REJECT)
    summary = pipeline.run()
    assert [answer.name for answer in answers] == list(CLASSES)
    assert (summary.samples, summary.windows, summary.predictions, summary.delivered) == (4, 4, 4, 4)
    assert summary.dropped == {}
    assert 0 < summary.latency_p50_ms <= summary.latency_p99_ms


def test_sensors_become_windows_of_the_models_shape(predictor):
    grid = np.arange(20) / 10
    signal = np.stack([np.sin(grid + i) for i in range(3)], axis=1).astype(np.float32)
    samples = [Sample(x=x, time=t) for t, x in zip(grid, signal, strict=True)]
    answers = []
    pipeline = Pipeline(
        predictor,
        sources=[("", of(samples))],
        windows=Windows(rate_hz=10, length=8, hop=4),
        sensors=[Sensor(name="watch", channels=3, max_gap_s=0.15)],
        sinks=[into(answers)],
        limits=REJECT,
    )
    pipeline.run()
    expected = [predictor.predict(signal[i : i + 8].T) for i in (0, 4, 8, 12)]
    assert [answer.time for answer in answers] == [0.7, 1.1, 1.5, 1.9]
    for answer, offline in zip(answers, expected, strict=True):
        assert answer.label == offline.label
        np.testing.assert_array_equal(answer.scores, offline.probabilities)


def test_windows_of_another_shape_than_the_models_are_refused_before_anything_runs(predictor):
    with pytest.raises(InvalidInput) as refused:
        Pipeline(
            predictor,
            sources=[("", of([]))],
            windows=Windows(rate_hz=10, length=9, hop=4),
            sensors=[Sensor(name="watch", channels=3)],
        )
    assert refused.value.code == "stream_shape_mismatch"


def test_a_model_swapped_meanwhile_answers_from_the_next_frame_on(predictor, tmp_path):
    (tmp_path / "other.onnx").write_bytes(artifact(shift=1))
    other = predictor.load(tmp_path / "other.onnx")
    answered = threading.Event()

    def stream():
        yield from frames(0, 0)
        answered.wait(10)
        predictor.swap(other)
        yield from frames(0, 0, start=2.0)

    names = []

    def note(answer):
        names.append((answer.name, answer.digest))
        if len(names) == 2:
            answered.set()

    Pipeline(predictor, sources=[("", of(stream))], sinks=[load_sink("callback", {"function": note})]).run()
    assert [name for name, _ in names] == ["walk", "walk", "run", "run"]
    assert names[3][1] == other.digest != names[0][1]


def test_late_frames_are_dropped_before_they_cost_a_prediction(predictor):
    old = [Sample(x=example(0), time=time.time() - 60), Sample(x=example(1), time=time.time() + 60)]
    answers = []
    limits = Limits(when_full="reject", deadline_ms=1000, deadline_from="stamp")
    summary = Pipeline(predictor, sources=[("", of(old))], sinks=[into(answers)], limits=limits).run()
    assert [answer.label for answer in answers] == [1]
    assert (summary.windows, summary.predictions, summary.dropped) == (2, 1, {"window.deadline": 1})


def test_frames_that_waited_too_long_for_their_turn_are_dropped(predictor):
    """The first prediction takes longer than the deadline: its answer is late, and there is no use in asking the others."""
    predict = predictor.predict

    def slow(x, *, truth=None):
        time.sleep(0.6)
        return predict(x, truth=truth)

    predictor.predict = slow
    summary = Pipeline(
        predictor, sources=[("", of(frames(0, 1, 2)))], limits=Limits(when_full="reject", deadline_ms=500)
    ).run()
    assert (summary.predictions, summary.dropped) == (1, {"window.deadline": 2})
    assert summary.noted == {"answered_late": 1}
    assert summary.latency_p50_ms > 500


@pytest.mark.parametrize("when_full", ["drop_oldest", "reject"])
def test_a_sink_that_cannot_keep_up_costs_the_oldest_or_holds_up_the_source(predictor, when_full):
    """Fifty frames at once, while the sink is busy with the first one until the source has ended."""
    ended, answers = threading.Event(), []

    def stream():
        yield from frames(*([0] * 49), 3)
        ended.set()

    def slow(answer):
        if when_full == "drop_oldest":
            ended.wait(10)
        answers.append(answer)

    limits = Limits(when_full=when_full, queue=2)
    pipeline = Pipeline(
        predictor, sources=[("", of(stream))], sinks=[load_sink("callback", {"function": slow})], limits=limits
    )
    summary = pipeline.run()
    lost = sum(n for cause, n in summary.dropped.items() if cause.endswith("queue_full"))
    assert answers[-1].label == 3
    assert len(answers) == summary.delivered == 50 - lost
    assert sum(summary.dropped.values()) == lost
    assert (lost > 0) == (when_full == "drop_oldest")


def test_what_fails_is_counted_by_its_cause_and_the_stream_goes_on(predictor):
    nan = np.full_like(example(0), np.nan)
    samples = [*frames(0), Sample(x=nan, time=1.0), Sample(x=np.zeros(3), time=2.0), *frames(1, start=3.0), "no array"]
    calls = []

    def broken(answer):
        calls.append(answer.label)
        raise RuntimeError("the sink is broken")

    answers = []
    sinks = [load_sink("callback", {"function": broken}), into(answers)]
    summary = Pipeline(predictor, sources=[("", of(samples))], sinks=sinks, limits=REJECT).run()
    assert calls == [0, 1] == [answer.label for answer in answers]
    assert summary.dropped == {"sample.nan": 1, "sink.callback": 2, "source.bad_sample": 1, "window.bad_input": 1}


def test_without_a_model_yet_windows_are_counted_and_the_first_model_answers(predictor):
    summary = Pipeline(Predictor(), sources=[("", of(frames(0, 1)))], limits=REJECT).run()
    assert summary.dropped == {"window.no_model": 2}


def test_a_source_that_fails_leaves_the_others_at_work(predictor):
    def broken():
        yield from frames(0)
        raise OSError("the cable is out")

    answers = []
    pipeline = Pipeline(
        predictor, sources=[("", of(broken)), ("", of(frames(1, 2)))], sinks=[into(answers)], limits=REJECT
    )
    summary = pipeline.run()
    assert sorted(answer.label for answer in answers) == [0, 1, 2]
    assert summary.failed == {"0.callable": "function_failed"}
    assert pipeline.failed.code == "function_failed"


def test_it_stops_when_told_and_answers_what_is_on_its_way(predictor):
    stop, answers = threading.Event(), []

    def endless():
        for i in range(10**9):
            yield Sample(x=example(0), time=float(i))
            if i == 20:
                stop.set()

    summary = Pipeline(predictor, sources=[("", of(endless))], sinks=[into(answers)], limits=REJECT).run(stop)
    assert 20 <= summary.predictions == len(answers) == summary.windows
    assert summary.samples - summary.windows == summary.dropped.get("sample.stopped", 0) <= 1


def test_a_fault_of_our_own_ends_the_pipeline_with_its_error(predictor):
    def fault(x, *, truth=None):
        raise ZeroDivisionError

    predictor.predict = fault
    with pytest.raises(ZeroDivisionError):
        Pipeline(predictor, sources=[("", of(lambda: iter(frames(*[0] * 100))))], limits=REJECT).run()


def test_the_summary_is_json_even_while_nothing_has_come(predictor):
    summary = Pipeline(predictor, sources=[("", of([]))]).run()
    assert json.loads(json.dumps(summary.facts(), allow_nan=False))["latency_p50_ms"] is None
    assert summary.line().startswith("samples 0; windows 0; predictions 0; delivered 0; dropped 0")
