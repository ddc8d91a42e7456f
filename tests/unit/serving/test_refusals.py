"""What a storm of requests may cost: seconds of a loop, by a clock of the test's own."""

from __future__ import annotations

from fogline_client.serving.refusals import Refusals


def test_a_burst_costs_nobody_a_rest():
    refusals = Refusals()
    assert [refusals.rest_s(0.000_1, 100.0 + i * 0.000_1) for i in range(20)] == [0.0] * 20


def test_in_a_storm_those_who_are_refused_rest_for_longer_and_longer_up_to_a_bound():
    refusals = Refusals()
    rests = [refusals.rest_s(0.000_1, 100.0 + i * 0.000_1) for i in range(2000)]
    assert sorted(rests) == rests
    assert 0.0 < max(rests) <= 0.1


def test_refusals_that_take_little_of_the_time_cost_no_rest_however_many_they_are():
    refusals = Refusals()
    assert not any(refusals.rest_s(0.000_1, 100.0 + i * 0.005) for i in range(10_000))


def test_a_storm_that_has_passed_is_forgotten():
    refusals = Refusals()
    for i in range(100):
        refusals.rest_s(0.000_1, 100.0 + i * 0.000_1)
    assert refusals.rest_s(0.000_1, 110.0) == 0.0
