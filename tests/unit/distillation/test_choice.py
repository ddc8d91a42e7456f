from __future__ import annotations

import numpy as np
import pytest

from fogline_server.distillation.choice import choose

GROUPS = np.repeat(np.arange(50), 4)


def right(share: float, *, of: int = 200) -> np.ndarray:
    """The first ``share`` of the examples."""
    return np.arange(of) < round(share * of)


def test_a_better_student_is_chosen_and_the_sentence_has_the_numbers() -> None:
    better = choose({"student": right(0.80), "distilled": right(0.95), "teacher": right(0.97)}, GROUPS)
    assert better.chosen == "distilled"
    assert better.lead is not None
    assert (better.lead.mean, better.lead.groups) == (pytest.approx(0.15), 50)
    assert "95.0% distilled against 80.0% on 200 held-out examples in 50 groups, +15.0 points" in better.sentence


def test_a_worse_student_is_said_to_be_harmed() -> None:
    worse = choose({"student": right(0.95), "distilled": right(0.80), "teacher": right(0.97)}, GROUPS)
    assert worse.chosen == "student"
    assert "-15.0 points" in worse.sentence
    assert "harms" in worse.sentence


def test_what_chance_explains_goes_to_the_control() -> None:
    tie = choose({"student": right(0.8), "distilled": right(0.8)}, GROUPS)
    assert (tie.chosen, tie.lead and tie.lead.mean) == ("student", 0.0)
    # Three examples of one recording are no evidence, however many there are in all.
    slightly = choose({"student": right(0.800), "distilled": right(0.815), "teacher": right(0.9)}, GROUPS)
    assert slightly.chosen == "student"
    assert "within chance" in slightly.sentence


def test_a_teacher_that_does_not_beat_the_student_is_not_distilled_from() -> None:
    choice = choose({"student": right(0.80), "distilled": right(0.95), "teacher": right(0.79)}, GROUPS)
    assert choice.chosen == "student"
    assert "not distilled from" in choice.sentence


def test_without_anything_to_compare_the_control_is_released() -> None:
    assert choose(None).chosen == "student"
    alone = choose({"student": right(0.8)})
    assert (alone.chosen, alone.lead, alone.control) == ("student", None, 0.8)


def test_json_is_rounded_throughout() -> None:
    told = choose({"student": right(1 / 3), "distilled": right(2 / 3)}, GROUPS).as_json()
    assert told["control"] == 0.335
    assert told["lead"]["mean"] == 0.33
    assert told["lead"]["low"] == round(told["lead"]["low"], 6)
