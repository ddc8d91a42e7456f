"""Curves as SVG, drawn by the server: a page without scripts still shows them. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fogline_server.reporting.scatter import Tick

WIDTH, HEIGHT = 520.0, 180.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 42.0, 92.0, 12.0, 24.0

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named line through ``points`` (x, y), in order of x."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A series in the picture's coordinates. ``path``: SVG path data; ``dots``: every point, with its own text."""

    name: str
    path: str
    dots: Sequence[tuple[float, float, str]]
    label_x: float
    label_y: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """What the template draws. Coordinates in SVG units of a WIDTH × HEIGHT picture."""

    lines: Sequence[Line]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = HEIGHT - _BOTTOM


def chart(series: Sequence[Series], *, x_max: float, percent: bool) -> Chart | None:
    """Lines from x = 1 to ``x_max``; None without a point. ``percent``: values are shares, the axis is 0 to 100 %."""
    shown = [s for s in series if s.points]
    if not shown:
        return None
    values = [y for s in shown for _, y in s.points]
    low, high = (0.0, 1.0) if percent else (min(0.0, *values), _round_up(max(values)))
    span_x, span_y = max(x_max - 1.0, 1.0), (high - low) or 1.0
    right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM

    def place(point: Point) -> Point:
        x = _LEFT + (point[0] - 1.0) / span_x * (right - _LEFT)
        y = bottom - (point[1] - low) / span_y * (bottom - _TOP)
        return round(x, 1), round(y, 1)

    def say(value: float) -> str:
        return f"{100 * value:.0f} %" if percent else f"{value:.3g}"

    lines = [_line(s, [place(p) for p in s.points], [say(y) for _, y in s.points]) for s in shown]
    return Chart(
        lines=_apart(lines),
        x_ticks=[Tick(at=place((x, low))[0], label=f"{x:.0f}") for x in _whole_ticks(x_max)],
        y_ticks=[Tick(at=place((1.0, y))[1], label=say(y)) for y in (low, (low + high) / 2, high)],
    )


def _line(series: Series, places: Sequence[Point], said: Sequence[str]) -> Line:
    path = " ".join(f"{'M' if i == 0 else 'L'}{x} {y}" for i, (x, y) in enumerate(places))
    dots = [
        (x, y, f"{series.name}, round {p[0]:.0f}: {t}")
        for (x, y), p, t in zip(places, series.points, said, strict=True)
    ]
    return Line(name=series.name, path=path, dots=dots, label_x=places[-1][0], label_y=places[-1][1], label=said[-1])


def _apart(lines: Sequence[Line], gap: float = 13.0) -> list[Line]:
    """Labels at the lines' ends, moved down where they would cover each other."""
    moved, last = [], -gap
    for line in sorted(lines, key=lambda each: each.label_y):
        last = max(line.label_y, last + gap)
        moved.append(replace(line, label_y=last))
    order = [line.name for line in lines]
    return sorted(moved, key=lambda each: order.index(each.name))


def _whole_ticks(x_max: float) -> list[float]:
    step = max(1, round(x_max / 6))
    return [float(x) for x in range(1, int(x_max) + 1, step)]


def _round_up(value: float) -> float:
    """The next 1, 2, 4 or 10 times a power of ten: an axis with labels people can halve."""
    if value <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1.0, 2.0, 4.0, 10.0) if value <= step * power)
