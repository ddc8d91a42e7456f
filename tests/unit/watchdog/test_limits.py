"""When the watchdog goes back: numbers on both sides of each limit."""

from __future__ import annotations

import pytest

from fogline_client.inference.trial import Call
from fogline_client.watchdog.comparison import Answers, one_class, slow, unsure
from fogline_client.watchdog.failures import failing
from fogline_client.watchdog.hanging import Hanging
from fogline_client.watchdog.limits import WatchdogLimits
from fogline_shared.errors import InvalidInput

LIMITS = WatchdogLimits()


def code(alarm) -> str:
    return "" if alarm is None else alarm.code


@pytest.mark.parametrize(
    ("calls", "failed", "expected"),
    [
        (1000, {"output_not_finite": 2}, ""),
        (1000, {"output_not_finite": 3}, "model_not_finite"),
        (2, {"inference_failed": 2}, ""),
        (15, {"inference_failed": 3}, ""),
        (14, {"inference_failed": 3}, "model_fails"),
    ],
)
def test_failures(calls: int, failed: dict[str, int], expected: str) -> None:
    assert code(failing("a", calls, failed, LIMITS)) == expected


@pytest.mark.parametrize(
    ("new_us", "old_us", "expected"),
    [
        (200.0, 2.0, ""),  # a hundred times, of nothing
        (11_000.0, 900.0, "model_slow"),
        (10_900.0, 900.0, ""),
        (100_000.0, 21_000.0, ""),
        (100_000.0, 19_000.0, "model_slow"),
    ],
)
def test_latency(new_us: float, old_us: float, expected: str) -> None:
    # One call that was interrupted decides nothing.
    now, then = Answers(took_us=[new_us] * 4 + [1e6]), Answers(took_us=[old_us] * 5)
    assert code(slow("a", now, then, LIMITS)) == expected


@pytest.mark.parametrize(
    ("new", "old", "classes", "expected"),
    [(0.6, 0.95, 2, "model_unsure"), (0.7, 0.95, 2, ""), (0.45, 0.9, 10, ""), (0.4, 0.9, 10, "model_unsure")],
)
def test_confidence(new: float, old: float, classes: int, expected: str) -> None:
    assert code(unsure("a", Answers(confidences=[new]), Answers(confidences=[old]), classes, LIMITS)) == expected


@pytest.mark.parametrize(
    ("now", "then", "expected"),
    [
        ([0] * 10, [0] * 8 + [1] * 2, "model_one_class"),
        ([0] * 10, [0] * 9 + [1], ""),
        ([0] * 9 + [1], [0, 1] * 5, ""),
    ],
)
def test_classes(now: list[int], then: list[int], expected: str) -> None:
    assert code(one_class("a", Answers(labels=now), Answers(labels=then), LIMITS)) == expected


def test_a_process_that_stood_still_has_no_call_that_hangs() -> None:
    hanging = Hanging("a", hang_s=2.0)
    call, next_one, batch = Call(1, 100, 0.0), Call(1, 200, 0.0), Call(2, 100, 1.0)
    assert [code(hanging.look([call], 0.5)) for _ in range(4)] == [""] * 4
    assert code(hanging.look([next_one], 0.5)) == "", "another call of the same thread"
    assert code(hanging.look([next_one], 3600.0)) == "", "nobody looked for an hour"
    assert code(hanging.look([next_one], 0.5)) == ""
    assert code(hanging.look([next_one], 0.5)) == "model_hangs"
    hanging = Hanging("a", hang_s=2.0)
    assert [code(hanging.look([batch], 0.5)) for _ in range(6)] == [""] * 6, "a large batch may take a while"
    assert code(hanging.look([batch], 0.5)) == "model_hangs"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"hang_s": 0.01}, "hang_s must be a number from 0.05 to 600"),
        ({"errors": 2.5}, "errors must be an integer"),
        ({"class_share": "half"}, "class_share must be a number"),
        ({"patience": 1}, "no field 'patience'; fields: watch_s,"),
        ([], "watchdog is an object"),
    ],
)
def test_wrong_limits_say_what_is_right(given: object, said: str) -> None:
    with pytest.raises(InvalidInput, match="bad_option") as caught:
        WatchdogLimits.from_json(given)
    assert said in caught.value.message
