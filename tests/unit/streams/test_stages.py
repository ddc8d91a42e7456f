"""What stages make of answers, one after the other."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fogline_client.streams.answers import ABSTAINED, Answer
from fogline_client.streams.stages.base import Chain, load_stage
from fogline_shared.errors import InvalidInput

CLASSES = ("rest", "walk", "run")
labels = st.lists(st.integers(0, 2), min_size=1, max_size=20)


def said(scores, time=0.0, classes=CLASSES):
    scores = np.array(scores, dtype=np.float32)
    label = int(scores.argmax())
    return Answer(time=time, label=label, confidence=float(scores[label]), scores=scores, classes=classes, digest="d")


def sure(label, time=0.0):
    scores = [0.1, 0.1, 0.1]
    scores[label] = 0.8
    return said(scores, time)


def chain(*stages, pause_s=10.0):
    return Chain([(name, load_stage(name, options)) for name, options in stages], pause_s=pause_s)


def test_a_temperature_makes_less_sure_and_leaves_the_label():
    logits = np.array([0.0, 2.0, 1.0])
    scores = np.exp(logits) / np.exp(logits).sum()
    calmer = chain(("temperature", {"temperature": 2.0})).apply(said(scores))
    expected = np.exp(logits / 2) / np.exp(logits / 2).sum()
    np.testing.assert_allclose(calmer.scores, expected, rtol=1e-5)
    assert (calmer.label, calmer.confidence) == (1, pytest.approx(expected[1], rel=1e-5))
    certain = chain(("temperature", {"temperature": 0.01})).apply(said([0.0, 1.0, 0.0]))
    assert certain.scores.tolist() == [0, 1, 0]


def test_a_threshold_abstains_aloud_or_in_silence():
    aloud = chain(("threshold", {"confidence": 0.8}))
    assert aloud.apply(sure(1)).name == "walk"
    doubtful = aloud.apply(said([0.5, 0.3, 0.2]))
    assert (doubtful.label, doubtful.name, doubtful.facts()["name"]) == (ABSTAINED, "", "")
    silent = chain(("threshold", {"confidence": 0.9, "silent": True}))
    assert silent.apply(sure(1)) is None
    assert silent.held_back == {"threshold": 1}


@given(
    rows=st.lists(st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3), min_size=1, max_size=12),
    weight=st.floats(0.01, 1),
)
@settings(max_examples=30, deadline=None)
def test_a_moving_average_is_its_recursion(rows, weight):
    smooth, mean = chain(("moving_average", {"weight": weight})), None
    for i, row in enumerate(rows):
        mean = np.array(row) if mean is None else weight * np.array(row) + (1 - weight) * mean
        answer = smooth.apply(said(row, float(i)))
        np.testing.assert_allclose(answer.scores, mean, atol=1e-5)
        assert answer.confidence == answer.scores.max() == answer.scores[answer.label]


@given(given_labels=labels, votes=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_the_majority_is_the_most_frequent_and_of_equals_the_latest(given_labels, votes):
    vote = chain(("majority", {"votes": votes}))
    for i, label in enumerate(given_labels):
        answer = vote.apply(sure(label, float(i)))
        window = given_labels[max(0, i + 1 - votes) : i + 1]
        counts = Counter(window)
        best = max(counts, key=lambda each: (counts[each], max(n for n, seen in enumerate(window) if seen == each)))
        assert (answer.label, answer.confidence) == (best, counts[best] / len(window))


def test_abstentions_do_not_vote():
    vote = chain(("threshold", {"confidence": 0.5}), ("majority", {"votes": 3}))
    heard = [vote.apply(answer).label for answer in (said([0.4, 0.3, 0.3]), sure(2, 1.0), said([0.4, 0.3, 0.3], 2.0))]
    assert heard == [ABSTAINED, 2, 2]


def test_events_begin_and_end_once_with_hysteresis():
    watch = chain(("events", {"on": 0.7, "off": 0.4, "after": 2, "ignore": ["rest"]}))
    walk = [0.1, 0.8, 0.2, 0.8, 0.8, 0.5, 0.3, 0.5, 0.3, 0.3, 0.8, 0.8]
    told = [watch.apply(said([0.35, p, 0.0], float(i))) for i, p in enumerate(walk)]
    assert [(i, answer.event, answer.name) for i, answer in enumerate(told) if answer] == [
        (4, "start", "walk"),
        (9, "end", "walk"),
        (11, "start", "walk"),
    ]
    assert told[9].confidence == pytest.approx(0.3)
    assert watch.held_back == {"events": 9}


def test_another_class_takes_over_after_the_first_has_ended():
    watch = chain(("events", {"after": 1, "all": True}))
    told = [watch.apply(sure(label, float(i))) for i, label in enumerate((1, 1, 2, 2, 0))]
    assert [(answer.event, answer.name) for answer in told] == [
        ("start", "walk"),
        ("", "walk"),
        ("end", "walk"),
        ("start", "run"),
        ("end", "run"),
    ]


@pytest.mark.parametrize("second", [{"time": 11.0}, {"time": -1.0}, {"time": 1.0, "classes": ("a", "b", "c")}])
def test_memory_ends_at_a_pause_a_clock_set_back_and_a_model_of_other_classes(second):
    smooth = chain(("moving_average", {"weight": 0.1}), pause_s=10.0)
    smooth.apply(said([1, 0, 0]))
    assert smooth.apply(said([0, 1, 0], **second)).scores.tolist() == [0, 1, 0]


def test_memory_lasts_otherwise():
    smooth = chain(("moving_average", {"weight": 0.1}), pause_s=10.0)
    smooth.apply(said([1, 0, 0]))
    assert smooth.apply(said([0, 1, 0], 10.0)).scores.tolist() == pytest.approx([0.9, 0.1, 0])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("temperature", {"temperature": 0}),
        ("temperature", {}),
        ("threshold", {"confidence": 1.5}),
        ("moving_average", {"weight": "half"}),
        ("majority", {"votes": 0}),
        ("events", {"on": 0.3, "off": 0.4}),
        ("events", {"after": 1.5}),
        ("events", {"since": 1}),
        ("events", {"ignore": "rest"}),
        ("events", {"all": 1}),
        ("threshold", {"confidence": 0.5, "silent": "false"}),
    ],
)
def test_a_wrong_option_is_named(name, options):
    with pytest.raises(InvalidInput) as refused:
        load_stage(name, options)
    assert refused.value.code == "invalid_pipeline"
