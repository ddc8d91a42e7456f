"""Which forms are worth having: no other beats them; and the pick, which says why."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fogline_server.compression.front import Limits, Measured, front, pick
from fogline_shared.errors import InvalidInput


def form(name: str, accuracy: float, size: int, p50_us: float, worst: float = 0.5) -> Measured:
    return Measured(name=name, accuracy=accuracy, worst_class=worst, size=size, p50_us=p50_us)


FLOAT = form("float", 0.90, 50_000, 40)
FORMS = [FLOAT, form("int8", 0.898, 14_000, 30), form("slow", 0.898, 14_000, 90), form("pruned", 0.88, 5_000, 20)]


def test_what_another_beats_in_everything_is_left_out() -> None:
    assert [each.name for each in front(FORMS)] == ["pruned", "int8", "float"]


def test_equals_both_stay() -> None:
    assert len(front([form("a", 0.9, 10, 1), form("b", 0.9, 10, 1)])) == 2


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=8
    )
)
def test_the_front_is_never_empty_and_beats_all_that_is_not_on_it(numbers: list[tuple[int, int, int, int]]) -> None:
    forms = [form(str(i), a / 3, s, p, w / 3) for i, (a, w, s, p) in enumerate(numbers)]
    kept = front(forms)
    assert kept
    assert not any(a.beats(b) for a in kept for b in kept)
    assert all(any(a.beats(b) for a in kept) for b in forms if b not in kept)


def test_the_most_accurate_within_the_limits_is_picked_and_the_others_say_why_not() -> None:
    chosen = pick(FORMS, Limits(max_bytes=20_000, max_p50_us=50, max_drop=0.01), parent=FLOAT)
    assert chosen.taken == FORMS[1]
    assert chosen.sentence.startswith("int8: 89.8% right, the most of 1 within the limits (its float parent 90.0%)")
    assert chosen.refused == {
        "float": ["50000 bytes, 20000 allowed"],
        "slow": ["90 µs, 50 allowed"],
        "pruned": ["loses 2.0%, 1.0% allowed"],
    }


def test_limits_that_nothing_keeps_pick_nothing() -> None:
    chosen = pick(FORMS, Limits(max_bytes=100), parent=FLOAT)
    assert (chosen.taken, len(chosen.refused)) == (None, 4)
    assert chosen.sentence == "none of 4 is within the limits"


def test_without_limits_everything_may_be_taken() -> None:
    assert pick(FORMS, Limits(), parent=FLOAT).taken == FLOAT


def test_a_number_that_is_none_is_out() -> None:
    broken = form("broken", float("nan"), 1, 1)
    assert pick([broken], Limits(max_drop=0.5), parent=FLOAT).taken is None


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"max_p50_us": -1}, {"max_drop": 1.5}])
def test_limits_that_cannot_be_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InvalidInput) as error:
        Limits(**limits)
    assert error.value.code == "invalid_limits"
