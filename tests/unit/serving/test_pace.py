"""What a request is thought to take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from fogline_client.serving.pace import Pace


@pytest.fixture
def clock():
    return SimpleNamespace(now=0.0)


@pytest.fixture
def pace(clock):
    return Pace(lambda: clock.now)


LOADED = SimpleNamespace(digest="a", warm_us=10_000.0)


def test_before_anything_was_seen_it_is_what_loading_measured(pace):
    assert pace.expect(LOADED, 3) == (pytest.approx(0.03), 0.0)


def test_it_follows_what_is_seen(pace):
    pace.expect(LOADED, 1)
    for _ in range(50):
        pace.saw("a", 2, 0.008)
    mean, margin = pace.expect(LOADED, 1)
    assert mean == pytest.approx(0.004, rel=0.01)
    assert margin < 0.001


def test_one_interrupted_call_says_little(pace):
    pace.expect(LOADED, 1)
    pace.saw("a", 1, 60.0)
    assert sum(pace.expect(LOADED, 1)) < 0.06


def test_a_bad_moment_is_forgotten_so_that_it_cannot_refuse_for_ever(pace, clock):
    pace.expect(LOADED, 1)
    for _ in range(20):
        pace.saw("a", 1, 0.5)
    assert sum(pace.expect(LOADED, 1)) > 0.4
    clock.now += 20
    assert sum(pace.expect(LOADED, 1)) == pytest.approx(0.010, rel=0.01)


def test_another_model_begins_anew_and_the_old_ones_times_are_not_its_own(pace):
    pace.expect(LOADED, 1)
    pace.saw("a", 1, 9.0)
    other = SimpleNamespace(digest="b", warm_us=1_000.0)
    assert pace.expect(other, 1) == (pytest.approx(0.001), 0.0)
    pace.saw("a", 1, 9.0)
    assert pace.expect(other, 1)[0] == pytest.approx(0.001)
