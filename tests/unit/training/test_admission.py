"""Each refusal has its honest twin: the same reply without the fault is accepted."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest

from fogline_server.training.admission import Candidate, Limits, Sent, judge_metrics, judge_updates
from fogline_shared import flower
from fogline_shared.states import UpdateVerdict

SENT = {"w": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float32)}
LIMITS = Limits(enrolled={1: 100, 2: 80, 3: 50, 4: 60}, max_norm_ratio=5.0)


def honest(node_id: int = 1, *, moved: float = 0.1, metrics: dict | None = None, **arrays: np.ndarray) -> Candidate:
    record = flower.to_record({name: array + np.float32(moved) for name, array in SENT.items()} | arrays)
    return Candidate(
        node_id=node_id,
        metrics={"num-examples": 50, "loss": 0.5} if metrics is None else metrics,
        arrays=record,
        flat=partial(flower.flat, record),
    )


def judge(*candidates: Candidate, running: tuple[str, ...] = ()) -> list:
    """The judgements, the same whether a model is read array by array or as one vector."""
    in_pieces = judge_updates(candidates, Sent(SENT, running=running), LIMITS)
    flat = judge_updates(candidates, Sent(SENT, running=running, flat=flower.flat(flower.to_record(SENT))), LIMITS)
    for one, other in zip(in_pieces, flat, strict=True):
        assert (one.verdict, one.code) == (other.verdict, other.code)
        assert (one.norm, one.running_norm) == pytest.approx((other.norm, other.running_norm))
    return flat


def test_honest_reply_is_accepted_with_its_count_and_loss() -> None:
    (judgement,) = judge(honest())
    assert (judgement.verdict, judgement.samples, judgement.loss) == (UpdateVerdict.ACCEPTED, 50, 0.5)
    assert judgement.norm == pytest.approx(math.sqrt(10) * 0.1, rel=1e-5)


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("not_finite", honest(w=np.full((2, 3), np.nan, np.float32))),
        ("not_finite", honest(b=np.array([1, 2, np.inf, 4], np.float32))),
        ("wrong_shape", honest(w=np.zeros((3, 2), np.float32))),
        ("wrong_dtype", honest(w=np.zeros((2, 3), np.float64))),
        ("wrong_keys", honest(extra=np.zeros(1, np.float32))),
        ("wrong_keys", Candidate(node_id=1, metrics={"num-examples": 5, "loss": 1.0}, arrays={})),
        ("no_arrays", Candidate(node_id=1, metrics={"num-examples": 5, "loss": 1.0})),
        ("bad_sample_count", honest(metrics={})),
        ("bad_sample_count", honest(metrics={"num-examples": 0, "loss": 1.0})),
        ("bad_sample_count", honest(metrics={"num-examples": True, "loss": 1.0})),
        ("bad_sample_count", honest(metrics={"num-examples": [5], "loss": 1.0})),
        ("bad_sample_count", honest(metrics={"num-examples": math.nan, "loss": 1.0})),
        ("bad_sample_count", honest(metrics={"num-examples": 10**400, "loss": 1.0})),
        ("bad_sample_count", honest(metrics={"num-examples": 1e300, "loss": 1.0})),
        ("not_finite", honest(metrics={"num-examples": 50, "loss": 10**400})),
        ("not_finite", honest(metrics={"num-examples": 50, "loss": 1.0, "extra": [10**400]})),
        ("implausible_samples", honest(metrics={"num-examples": 1e12, "loss": 1.0})),
        ("not_finite", honest(metrics={"num-examples": 50, "loss": math.nan})),
        ("missing_metric", honest(metrics={"num-examples": 50})),
        ("missing_metric", honest(metrics={"num-examples": 50, "loss": [1.0]})),
    ],
)
def test_bad_reply_is_refused_with_a_reason_and_the_others_are_not(code: str, bad: Candidate) -> None:
    judged = judge(bad, honest(2), honest(3))
    assert [j.verdict for j in judged] == [UpdateVerdict.REFUSED, UpdateVerdict.ACCEPTED, UpdateVerdict.ACCEPTED]
    assert judged[0].code == code
    assert judged[0].reason


def test_device_that_failed_is_an_error_not_a_refusal() -> None:
    (judgement,) = judge(Candidate(node_id=1, error=("training_failed", "out of memory"), fault=True))
    assert (judgement.verdict, judgement.code) == (UpdateVerdict.ERROR, "training_failed")


def test_more_samples_than_enrolled_weigh_as_enrolled() -> None:
    judged = judge(honest(3, metrics={"num-examples": 70, "loss": 1.0}))
    assert judged[0].samples == 50


def test_newcomer_weighs_at_most_as_the_largest_device() -> None:
    judged = judge(honest(99, metrics={"num-examples": 999, "loss": 1.0}))
    assert (judged[0].verdict, judged[0].samples) == (UpdateVerdict.ACCEPTED, 100)


def test_update_that_moves_ten_times_as_far_as_its_cohort_is_refused() -> None:
    judged = judge(honest(1), honest(2, moved=0.12), honest(3, moved=0.09), honest(4, moved=-1.0))
    assert [j.verdict for j in judged][:3] == [UpdateVerdict.ACCEPTED] * 3
    assert judged[3].code == "implausible_norm"


def test_two_replies_are_no_cohort_to_compare_with() -> None:
    assert {j.verdict for j in judge(honest(1), honest(2, moved=-1.0))} == {UpdateVerdict.ACCEPTED}


def test_running_statistics_may_move_to_a_devices_own_data_but_not_away() -> None:
    near = [honest(node, b=SENT["b"] + np.float32(0.01)) for node in (1, 2, 3)]
    own_data = honest(4, b=SENT["b"] + np.float32(1.0))
    away = honest(4, b=SENT["b"] + np.float32(100.0))
    assert {j.verdict for j in judge(*near, own_data, running=("b",))} == {UpdateVerdict.ACCEPTED}
    assert judge(*near, away, running=("b",))[3].code == "implausible_norm"


def test_evaluation_needs_its_accuracy() -> None:
    replies = [
        Candidate(node_id=1, metrics={"num-examples": 10, "loss": 1.0, "accuracy": 0.5}),
        Candidate(node_id=2, metrics={"num-examples": 10, "loss": 1.0}),
    ]
    judged = judge_metrics(replies, LIMITS, required=("accuracy", "loss"))
    assert [j.verdict for j in judged] == [UpdateVerdict.ACCEPTED, UpdateVerdict.REFUSED]


@pytest.mark.parametrize("place", [0, 40_000, 99_999])
def test_long_arrays_are_measured_in_full_and_one_bad_value_anywhere_is_found(place: int) -> None:
    sent = {"w": np.linspace(-1, 1, 100_000, dtype=np.float32)}
    rng = np.random.default_rng(0)
    good = sent["w"] + rng.normal(size=100_000).astype(np.float32)
    bad, huge = good.copy(), np.float64([1e200, 2.0])
    bad[place] = np.nan

    def judged(array: np.ndarray, reference: dict) -> object:
        reply = Candidate(node_id=1, metrics={"num-examples": 50, "loss": 0.5}, arrays=flower.to_record({"w": array}))
        return judge_updates([reply], Sent(reference), LIMITS)[0]

    assert judged(good, sent).norm == pytest.approx(
        float(np.linalg.norm(good.astype(np.float64) - sent["w"])), rel=1e-9
    )
    assert judged(bad, sent).code == "not_finite"
    # Finite, though its square is not: it is too far away, not broken.
    assert judged(huge, {"w": np.zeros(2)}).code == ""
