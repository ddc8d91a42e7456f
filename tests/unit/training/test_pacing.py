"""How many devices a round asks and until when: from what earlier rounds have shown."""

from __future__ import annotations

import random
from dataclasses import asdict

import pytest

from fogline_server.training.pacing import Pacing, Past, draw, pace_of, rest_rounds
from fogline_server.training.spec import RunSpec
from fogline_shared.errors import InvalidInput

TUNED = Pacing(target=20, over_selection=0.25, self_tuning=True)
HOW = {"quorum": 0.8, "fewest": 2, "deadline_s": 100.0}


def past(asked: int, answered: int, *, seconds: float = 10.0, sent_s: float = 0.0) -> Past:
    return Past(sent_s=sent_s, deadline_s=100.0, asked=asked, answers_s=[seconds] * answered)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"target": 0}, "pacing.target"),
        ({"target": 2, "over_selection": 5}, "pacing.over_selection"),
        ({"retries": -1}, "pacing.retries"),
        ({"target": 2, "steering": 1}, "pacing.steering"),
        ({"over_selection": 0.5}, "pacing.over_selection"),
        ({"self_tuning": True}, "pacing.self_tuning"),
        ({"dropout": 0.5}, "pacing.dropout"),
    ],
)
def test_what_is_out_of_range_or_means_nothing_is_refused(fields: dict, field: str) -> None:
    with pytest.raises(InvalidInput, match="invalid_run") as refused:
        Pacing.from_json(fields)
    assert refused.value.detail["field"] == field


def test_a_target_lies_between_the_runs_fewest_and_most_devices() -> None:
    with pytest.raises(InvalidInput, match=r"pacing\.target must be an integer from 5 to 8"):
        RunSpec(recipe="tiny", min_devices=5, max_devices=8, pacing=Pacing(target=9))
    spec = RunSpec(recipe="tiny", pacing=TUNED)
    assert RunSpec.from_json(spec.as_json()).pacing == TUNED
    old = {name: value for name, value in spec.as_json().items() if name not in {"pacing", "gate"}}
    assert RunSpec.from_json(old).pacing == Pacing()
    assert Pacing.from_json(asdict(TUNED)) == TUNED


def test_without_a_target_there_is_no_pace() -> None:
    assert pace_of(Pacing(retries=3), [past(10, 5)], **HOW, now_s=1e9) is None


def test_the_first_round_asks_as_configured() -> None:
    pace = pace_of(TUNED, [], **HOW, now_s=0.0)
    assert pace is not None
    assert (pace.asked, pace.target, pace.deadline_s, pace.dropout) == (25, 20, 100.0, None)


def test_the_more_are_lost_the_more_are_asked_and_never_fewer_than_the_target() -> None:
    asked = [pace_of(TUNED, [past(100, 100 - lost)] * 5, **HOW, now_s=1e9).asked for lost in (0, 10, 30, 50, 99)]
    assert asked == sorted(asked)
    assert asked[0] == 20
    assert asked[-1] == 100, "at most five times the target"


def test_few_observations_make_nobody_sure() -> None:
    few, many = (pace_of(TUNED, [past(10 * n, 7 * n)], **HOW, now_s=1e9).asked for n in (1, 100))
    assert few > many


@pytest.mark.parametrize("dropout", [0.1, 0.3, 0.5])
def test_of_the_devices_asked_the_quorum_answers_almost_always(dropout: float) -> None:
    rng = random.Random(1)
    reached, history = 0, []
    for number in range(1000):
        pace = pace_of(TUNED, history, **HOW, now_s=200.0 * number)
        answered = sum(rng.random() >= dropout for _ in range(pace.asked))
        history.append(past(pace.asked, answered, sent_s=200.0 * number))
        # The first round knows nothing yet.
        reached += number > 0 and answered >= 16
    assert reached >= 0.98 * 999


def test_a_round_that_closed_early_counts_once_its_deadline_has_passed() -> None:
    closed_early = past(30, 20, sent_s=50.0)
    assert pace_of(TUNED, [closed_early], **HOW, now_s=149.0).dropout is None
    assert pace_of(TUNED, [closed_early], **HOW, now_s=150.0).dropout == pytest.approx(1 / 3, abs=1e-3)


def test_the_deadline_follows_the_answers_within_its_bounds() -> None:
    def deadline(seconds: float) -> float:
        return pace_of(TUNED, [past(20, 20, seconds=seconds)], **HOW, now_s=1e9).deadline_s

    assert [deadline(s) for s in (0.1, 40.0, 390.0)] == [1.0, 60.0, 400.0]


def test_devices_rest_only_where_there_are_others() -> None:
    assert [rest_rounds(fleet, 10) for fleet in (10, 29, 30, 100, 1000)] == [0, 0, 1, 4, 49]
    devices = list(range(30))
    assert not set(draw(devices, 10, lot="a", rests=[range(10)])) & set(range(10))
    # Too few others: those who rested longest come first.
    drawn = draw(devices, 15, lot="a", rests=[range(10), range(10, 20)])
    assert not set(drawn) & set(range(10))
    assert draw(devices, 40, lot="a", rests=[range(10)]) == devices
    assert draw(devices, 5, lot="a") == draw(devices, 5, lot="a") != draw(devices, 5, lot="b")
