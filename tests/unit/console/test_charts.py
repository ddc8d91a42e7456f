from __future__ import annotations

from fogline_server.console.charts import HEIGHT, WIDTH, Series, chart


def test_nothing_to_draw_is_no_chart():
    assert chart([Series(name="a", points=[])], x_max=5, percent=True) is None


def test_points_stay_inside_the_picture():
    drawn = chart([Series(name="loss", points=[(1, 3.7), (2, -0.5), (9, 0)])], x_max=9, percent=False)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y, _ in drawn.lines[0].dots)
    assert [t.label for t in drawn.y_ticks] == ["-0.5", "1.75", "4"]


def test_one_round_is_a_dot():
    drawn = chart([Series(name="a", points=[(1, 0.5)])], x_max=1, percent=True)
    assert drawn.lines[0].path.startswith("M")
    assert drawn.lines[0].dots[0][2] == "a, round 1: 50 %"


def test_labels_of_lines_that_end_together_do_not_cover_each_other():
    drawn = chart([Series(name="a", points=[(1, 0.5)]), Series(name="b", points=[(1, 0.51)])], x_max=2, percent=True)
    one, two = (line.label_y for line in drawn.lines)
    assert abs(one - two) >= 13


def test_all_equal_values_and_zero_do_not_divide_by_zero():
    assert chart([Series(name="a", points=[(1, 0), (2, 0)])], x_max=2, percent=False) is not None
