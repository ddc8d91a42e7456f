"""When a virtual exchange closes: by the rule of a live round, in virtual seconds."""

from __future__ import annotations

import pytest

from fogline_server.simulation.clock import close

FOUR_IN_TIME = {0: 10.0, 1: 20.0, 2: 30.0, 3: 40.0}


def test_it_closes_with_the_last_answer() -> None:
    closing = close(FOUR_IN_TIME, quorum=0.5, deadline_s=100.0)
    assert (closing.seconds, closing.reached, closing.in_time) == (40.0, True, {0, 1, 2, 3})
    assert (closing.device_s, closing.wasted_s) == (100.0, 0.0)


def test_at_the_deadline_the_quorum_is_enough() -> None:
    closing = close({**FOUR_IN_TIME, 4: 250.0, 5: None}, quorum=0.5, deadline_s=100.0)
    assert (closing.seconds, closing.reached) == (100.0, True)
    assert (closing.in_time, closing.late, closing.lost) == ({0, 1, 2, 3}, {4}, {5})
    assert (closing.device_s, closing.wasted_s) == (350.0, 250.0)


def test_without_a_quorum_at_the_deadline_it_waits_for_its_last() -> None:
    closing = close({0: 50.0, 1: 150.0, 2: 350.0, 3: None}, quorum=0.5, deadline_s=100.0)
    assert (closing.seconds, closing.reached, closing.in_time, closing.late) == (150.0, True, {0, 1}, {2})


@pytest.mark.parametrize("others", [None, 401.0])
def test_it_gives_up_at_four_times_the_deadline(others: float | None) -> None:
    closing = close({0: 50.0, 1: others, 2: others}, quorum=0.6, deadline_s=100.0)
    assert (closing.seconds, closing.reached) == (400.0, False)
    assert closing.wasted_s == closing.device_s


def test_a_last_answer_after_the_deadline_is_late_even_if_nobody_is_lost() -> None:
    closing = close({0: 50.0, 1: 60.0, 2: 101.0}, quorum=0.6, deadline_s=100.0)
    assert (closing.seconds, closing.late) == (100.0, {2})
