"""The predictor: answers, what it observes, what it refuses, swaps."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from artifacts import CLASSES, artifact, example

from fogline_client import Observation, Predictor
from fogline_client.inference.model import LoadedModel
from fogline_shared.errors import Corrupt, FoglineError, InvalidInput, Unavailable


@pytest.fixture
def model_file(tmp_path):
    def write(name="model.onnx", **options):
        path = tmp_path / name
        path.write_bytes(artifact(**options))
        return path

    return write


def test_a_prediction_carries_label_name_confidence_and_digest(model_file):
    predictor = Predictor.from_file(model_file(scale=2.0))
    answer = predictor.predict(example(2))
    assert (answer.label, answer.name, answer.digest) == (2, CLASSES[2], predictor.active_digest)
    assert answer.confidence == pytest.approx(np.exp(2) / (np.exp(2) + 3))
    assert answer.probabilities.sum() == pytest.approx(1.0)
    assert answer.probabilities[2] == pytest.approx(answer.confidence)


def test_answers_do_not_share_a_buffer(model_file):
    predictor = Predictor.from_file(model_file())
    first = predictor.predict(example(0))
    kept = first.logits.copy()
    predictor.predict(example(3))
    assert np.array_equal(first.logits, kept)


@pytest.mark.parametrize("x", [example(1), example(1)[None], example(1).tolist(), example(1).astype(np.float64)])
def test_one_example_may_come_with_or_without_its_batch_axis_and_in_any_number_type(model_file, x):
    assert Predictor.from_file(model_file()).predict(x).label == 1


def test_a_batch_is_answered_in_order(model_file):
    predictor = Predictor.from_file(model_file())
    answers = predictor.predict_many(np.stack([example(i) for i in (3, 0, 2)]))
    assert [answer.label for answer in answers] == [3, 0, 2]


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((8, 3), np.float32),
        np.zeros(24, np.float32),
        np.zeros((2, 3, 8), np.float32),
        np.full((3, 8), np.nan, np.float32),
        np.full((3, 8), "a"),
        3.0,
    ],
)
def test_a_callers_mistake_is_refused_and_not_held_against_the_model(model_file, x):
    seen: list[Observation] = []
    predictor = Predictor.from_file(model_file(), observe=seen.append)
    with pytest.raises(InvalidInput) as refused:
        predictor.predict(x)
    assert refused.value.code == "bad_input"
    assert seen == []
    assert predictor.predict(example(1)).label == 1


def test_without_a_model_there_is_an_answer_that_says_so():
    with pytest.raises(Unavailable) as refused:
        Predictor().predict(example(0))
    assert refused.value.code == "no_model"


def test_every_prediction_is_observed_with_its_truth(model_file):
    seen: list[Observation] = []
    predictor = Predictor.from_file(model_file(), observe=seen.append)
    predictor.predict(example(1), truth=3)
    predictor.predict_many(np.stack([example(0), example(2)]), truths=[0, None])
    assert [(o.label, o.truth, o.error) for o in seen] == [(1, 3, ""), (0, 0, ""), (2, None, "")]
    assert all(o.latency_us > 0 and 0 < o.confidence <= 1 and o.digest == predictor.active_digest for o in seen)


@pytest.mark.parametrize("truth", [-1, len(CLASSES), 10**12])
def test_a_truth_that_is_no_class_is_refused(model_file, truth):
    with pytest.raises(InvalidInput) as refused:
        Predictor.from_file(model_file()).predict(example(0), truth=truth)
    assert refused.value.code == "bad_truth"


def test_truths_must_be_one_each(model_file):
    with pytest.raises(InvalidInput) as refused:
        Predictor.from_file(model_file()).predict_many(np.stack([example(0)] * 3), truths=[1, 2])
    assert refused.value.code == "bad_truth"


class _Diverging:
    """A real model's session whose answers become NaN later: what a bit flip in memory does."""

    def __init__(self, session):
        self._session = session
        self.broken = False

    def run(self, x):
        result = self._session.run(x)
        return result * np.nan if self.broken else result

    def bind(self, shape, width):
        bound, outer = self._session.bind(shape, width), self

        class Bound:
            input, output = bound.input, bound.output

            def run(self):
                bound.run()
                if outer.broken:
                    bound.output *= np.nan

        return Bound()


def test_a_model_that_turns_to_nan_raises_and_is_observed(model_file):
    seen: list[Observation] = []
    predictor = Predictor(observe=seen.append)
    loaded = predictor.load(model_file())
    session = _Diverging(loaded._session)
    predictor.swap(LoadedModel(digest=loaded.digest, size=loaded.size, manifest=loaded.manifest, session=session))
    assert predictor.predict(example(1)).label == 1
    session.broken = True
    with pytest.raises(Corrupt) as failed:
        predictor.predict(example(1), truth=1)
    assert failed.value.code == "output_not_finite"
    with pytest.raises(Corrupt):
        predictor.predict_many(np.stack([example(1)] * 2))
    assert [(o.error, o.label, o.truth) for o in seen[1:]] == [("output_not_finite", -1, t) for t in (1, None, None)]


def test_a_broken_observer_costs_no_answer(model_file):
    def broken(_: Observation) -> None:
        raise OSError("disk full")

    assert Predictor.from_file(model_file(), observe=broken).predict(example(2)).label == 2


def test_swap_returns_the_previous_model_still_warm(model_file):
    predictor = Predictor()
    old = predictor.load(model_file("old.onnx"))
    bad = predictor.load(model_file("bad.onnx", shift=1))
    assert predictor.swap(old) is None
    assert predictor.swap(bad) is old
    assert predictor.predict(example(0)).label == 1
    assert predictor.swap(old) is bad
    assert predictor.predict(example(0)).label == 0
    assert predictor.swap(None) is old
    assert predictor.active_digest == ""


def test_swaps_under_load_lose_no_request_and_mix_no_answer(model_file):
    predictor = Predictor()
    models = [predictor.load(model_file(f"{shift}.onnx", shift=shift)) for shift in (0, 1)]
    shift_of = {models[0].digest: 0, models[1].digest: 1}
    predictor.swap(models[0])
    stop, wrong, counts = threading.Event(), [], [0] * 4

    def ask(worker: int) -> None:
        while not stop.is_set():
            label = counts[worker] % len(CLASSES)
            try:
                answer = predictor.predict(example(label))
                if answer.label != (label + shift_of[answer.digest]) % len(CLASSES):
                    wrong.append(answer)
            except FoglineError as error:
                wrong.append(error)
            counts[worker] += 1

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for i in range(300):
        predictor.swap(models[i % 2])
        stop.wait(0.002)
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(counts) > 20
