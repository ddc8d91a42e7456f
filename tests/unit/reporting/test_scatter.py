from __future__ import annotations

import itertools

from fogline_server.reporting.scatter import HEIGHT, WIDTH, Form, scatter


def form(name: str, size: int, accuracy: float, kind: str = "front") -> Form:
    return Form(name=name, kind=kind, size=size, accuracy=accuracy, title=name)


def test_nothing_found_is_no_picture():
    assert scatter([]) is None


def test_forms_lie_by_bytes_and_accuracy_and_the_pick_over_the_others():
    drawn = scatter([form("a", 5000, 0.9, "pick"), form("b", 10_000, 0.8, "beaten"), form("c", 2500, 0.7)])
    assert [dot.kind for dot in drawn.dots] == ["beaten", "front", "pick"]
    beaten, front, pick = drawn.dots
    assert front.x < pick.x < beaten.x
    assert pick.y < beaten.y < front.y
    assert (beaten.label, front.label, pick.label) == ("", "c", "a")
    assert all(0 <= dot.x <= WIDTH and 0 <= dot.y <= HEIGHT for dot in drawn.dots)
    assert [tick.label for tick in drawn.x_ticks] == ["0.0 kB", "5.0 kB", "10.0 kB"]
    assert [tick.label for tick in drawn.y_ticks] == ["70.0 %", "80.0 %", "90.0 %"]


def test_names_of_neighbours_do_not_cover_each_other():
    drawn = scatter([form(name, 5000 + i, 0.9) for i, name in enumerate("abc")] + [form("low", 100, 0.1)])
    heights = sorted(dot.label_y for dot in drawn.dots if dot.label != "low")
    assert all(below - above >= 13 for above, below in itertools.pairwise(heights))


def test_a_name_at_the_right_edge_stands_before_its_dot():
    left, right = scatter([form("a", 100, 0.5), form("b", 5000, 0.9)]).dots
    assert (left.anchor, right.anchor) == ("start", "end")


def test_equal_forms_do_not_divide_by_zero():
    assert len(scatter([form("a", 5, 0.5), form("b", 5, 0.5)]).dots) == 2
