"""What windows do with samples that are late, twice, broken or from a clock that was set, case by case."""

from __future__ import annotations

import numpy as np
import pytest

from fogline_client.streams.windows import Fuser, Sensor, Windows
from fogline_shared.errors import InvalidInput


def fuser(*sensors, **more):
    told = {"rate_hz": 10.0, "length": 2, "hop": 2} | more
    return Fuser(Windows(**told), sensors or [Sensor(name="a", channels=1, max_gap_s=0.15)])


def push(each, *samples, name="a"):
    """(time, value) pairs; the windows they complete, as (time, values)."""
    frames = []
    for time, value in samples:
        frames += each.add(name, [value], time=time, arrived=time)
    return [(frame.time, frame.x.reshape(-1).tolist()) for frame in frames]


def counted(counter):
    return {cause: n for cause, n in counter.items() if n}


def test_windows_begin_at_whole_hops_of_the_clock():
    each = fuser()
    assert push(each, *[(i / 10, i) for i in range(3, 9)]) == [(0.5, [4, 5]), (0.7, [6, 7])]


def test_the_layout_is_the_models():
    each = fuser(Sensor(name="a", channels=1), Sensor(name="b", channels=2), layout="time_first")
    assert each.shape == (2, 3)
    frames = []
    for time in (0.0, 0.1):
        frames += each.add("a", 1.0, time=time, arrived=7.0)
        frames += each.add("b", [2.0, 3.0], time=time, arrived=8.0 + time)
    assert [(frame.x.tolist(), frame.arrived) for frame in frames] == [([[1, 2, 3], [1, 2, 3]], 8.1)]


def test_late_and_repeated_samples_are_dropped_by_cause():
    each = fuser(reorder_s=0.1)
    samples = [(0.0, 0), (0.2, 2), (0.1, 1), (0.1, 9), (0.3, 3), (0.05, 9), (0.2, 9), (0.5, 5)]
    assert push(each, *samples) == [(0.1, [0, 1]), (0.3, [2, 3])]
    assert counted(each.dropped) == {"duplicate": 2, "late": 1}
    assert [frame.time for frame in each.flush()] == []
    assert counted(each.skipped) == {"a": 1}


def test_a_clock_set_back_begins_anew_and_one_stray_stamp_costs_itself():
    each = fuser()
    assert push(each, (100.0, 0), (100.1, 1)) == [(100.1, [0, 1])]
    assert push(each, (5.0, 9), (100.2, 2), (100.3, 3)) == [(100.3, [2, 3])]
    assert counted(each.dropped) == {"late": 1}
    assert push(each, (7.0, 7), (7.1, 8), (7.2, 9), (7.3, 10), (7.4, 11), (7.5, 12)) == [
        (7.3, [9, 10]),
        (7.5, [11, 12]),
    ]
    assert counted(each.dropped) == {"late": 3}
    assert counted(each.noted) == {"clock_set_back": 1}


def test_a_stamp_from_the_far_future_heals_by_itself():
    each = fuser()
    push(each, (0.0, 0), (0.1, 1), (1e9, 9))
    got = push(each, *[(i / 10, i) for i in range(2, 10)])
    assert got == [(0.5, [4, 5]), (0.7, [6, 7]), (0.9, [8, 9])]
    assert counted(each.dropped) == {"late": 2}


def test_a_year_without_samples_is_skipped_at_once():
    each = fuser()
    year = 365 * 86400.0
    push(each, (0.0, 0), (0.1, 1))
    assert push(each, (year, 2), (year + 0.1, 3)) == [(pytest.approx(year + 0.1), [2, 3])]
    assert counted(each.skipped) == {"a": year / 0.2 - 1}


@pytest.mark.parametrize("policy", ["drop", "hold"])
def test_nan_is_dropped_and_bridged_or_holds_the_last_value(policy):
    each = fuser(Sensor(name="a", channels=2, nan=policy, max_gap_s=0.25))
    frames = []
    for i, x in enumerate(([0.0, 0.0], [np.nan, 1.0], [2.0, 2.0], [np.inf, 3.0], [4.0, 4.0])):
        frames += each.add("a", x, time=i / 10, arrived=0.0)
    held = policy == "hold"
    assert [frame.x.tolist() for frame in frames] == [[[0, 0 if held else 1], [0, 1]], [[2, 2 if held else 3], [2, 3]]]
    assert counted(each.dropped) == ({} if held else {"nan": 2})
    assert counted(each.noted) == ({"nan_held": 2} if held else {})


def test_nan_before_any_value_cannot_be_held():
    each = fuser(Sensor(name="a", channels=1, nan="hold"))
    assert push(each, (0.0, np.nan)) == []
    assert counted(each.dropped) == {"nan": 1}


@pytest.mark.parametrize("hold_s", [0.0, 0.35])
def test_a_missing_sensor_skips_windows_or_is_held_up_to_an_age(hold_s):
    each = fuser(Sensor(name="a", channels=1), Sensor(name="b", channels=1, hold_s=hold_s))
    got = []
    for i in range(12):
        got += push(each, (i / 10, i))
        if i < 2:
            got += push(each, (i / 10, 50 + i), name="b")
    held = [(0.3, [2, 3, 51, 51])] if hold_s else []
    assert got == [(0.1, [0, 1, 50, 51]), *held]
    assert counted(each.noted) == ({"held": 1} if hold_s else {})
    assert counted(each.skipped) == {"b": 3 if hold_s else 4}


def test_a_window_waits_for_a_sample_that_is_just_near_enough():
    """At the end of the wait to the last bit: 0.5 is 0.1 after 0.4, and another sensor's 0.5 comes first."""
    each = fuser(
        Sensor(name="a", channels=1, fusion="hold", hold_s=9.0),
        Sensor(name="b", channels=1, fusion="nearest", max_gap_s=0.1),
        length=1,
        hop=4,
    )
    assert push(each, (0.0, 1), (0.5, 2)) == []
    assert push(each, (0.5, 3), name="b") == [(0.4, [1, 3])]


def test_what_has_no_room_goes_oldest_first():
    each = fuser(Sensor(name="a", channels=1), Sensor(name="b", channels=1), max_samples=4, wait_s=100.0)
    push(each, *[(i / 10, i) for i in range(10)])
    assert counted(each.dropped) == {"no_room": 6}


def test_samples_that_wait_to_be_ordered_are_bounded_too():
    each = fuser(reorder_s=100.0, jump_s=100.0, max_samples=4)
    assert push(each, *[(i / 10, i) for i in range(10)]) == [(0.1, [0, 1]), (0.3, [2, 3]), (0.5, [4, 5])]
    assert each._tracks["a"].waiting == 4


@pytest.mark.parametrize(
    ("sample", "cause"),
    [
        (("z", [1.0], 0.0), "unknown_sensor"),
        (("a", [1.0, 2.0], 0.0), "bad_shape"),
        (("a", "text", 0.0), "bad_shape"),
        (("a", None, 0.0), "nan"),
        (("a", [1.0], float("nan")), "bad_time"),
        (("a", [1.0], float("inf")), "bad_time"),
    ],
)
def test_what_is_no_sample_is_counted(sample, cause):
    each = fuser()
    name, x, time = sample
    assert each.add(name, x, time=time, arrived=0.0) == []
    assert counted(each.dropped) == {cause: 1}


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Sensor(name="", channels=1),
        lambda: Sensor(name="a", channels=0),
        lambda: Sensor(name="a", channels=1, nan="guess"),
        lambda: Sensor(name="a", channels=1, max_gap_s=-1),
        lambda: Windows(rate_hz=0, length=1, hop=1),
        lambda: Windows(rate_hz=1, length=1.5, hop=1),
        lambda: Windows(rate_hz=1, length=1, hop=1, layout="sideways"),
        lambda: Windows(rate_hz=1, length=1, hop=1, reorder_s=2, jump_s=1),
        lambda: fuser(Sensor(name="a", channels=1), Sensor(name="a", channels=1)),
        lambda: fuser(wait_s=0.1),
        lambda: Fuser(Windows(rate_hz=1, length=1, hop=1), []),
    ],
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(InvalidInput) as refused:
        wrong()
    assert refused.value.code == "invalid_pipeline"


def test_an_unknown_fusion_names_the_known():
    with pytest.raises(InvalidInput, match="hold, linear, nearest") as refused:
        Sensor(name="a", channels=1, fusion="spline")
    assert refused.value.code == "unknown_fusion"
