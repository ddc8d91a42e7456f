from __future__ import annotations

from fogline_server.distillation.choice import choose, worth_distilling


def test_the_better_student_is_chosen_and_the_sentence_has_the_numbers() -> None:
    better = choose(control=0.80, distilled=0.85, teacher=0.9, examples=200)
    assert (better.chosen, better.margin) == ("distilled", 0.05)
    assert "85.0%" in better.sentence
    assert "5.0 points better" in better.sentence
    worse = choose(control=0.85, distilled=0.80, teacher=0.9, examples=200)
    assert (worse.chosen, worse.margin) == ("student", 0.05)
    assert "-5.0 points" in worse.sentence


def test_a_tie_goes_to_the_control() -> None:
    tie = choose(control=0.8, distilled=0.8, teacher=0.9, examples=10)
    assert (tie.chosen, tie.margin) == ("student", 0.0)


def test_a_teacher_that_does_not_beat_the_student_is_not_distilled_from() -> None:
    assert not worth_distilling(teacher=0.8, student=0.8)
    assert worth_distilling(teacher=0.81, student=0.8)
    choice = choose(control=0.8, distilled=0.85, teacher=0.79, examples=50)
    assert choice.chosen == "student"
    assert "not distilled from" in choice.sentence


def test_without_anything_to_compare_the_control_is_released() -> None:
    assert choose(control=None, examples=0).chosen == "student"
    alone = choose(control=0.8, examples=50)
    assert (alone.chosen, alone.margin) == ("student", None)
