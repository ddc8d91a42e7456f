"""What a compression search found, as points: bytes as sent to the right, accuracy upwards. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

WIDTH, HEIGHT = 900.0, 320.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 24.0, 14.0, 40.0
# Between the texts of neighbours; and what of the width a text at the right edge may need.
_GAP, _TEXT = 14.0, 260.0


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A place on an axis, and what stands there."""

    at: float
    label: str


@dataclass(frozen=True, kw_only=True)
class Form:
    """A measured form. ``kind``: ``pick``, ``front`` or ``beaten``; ``size``: bytes as sent; ``accuracy``: a share; ``title``: all in words."""

    name: str
    kind: str
    size: int
    accuracy: float
    title: str


@dataclass(frozen=True, kw_only=True)
class Dot:
    """A form in the picture's coordinates. ``label``: empty for those whose name would only cover others."""

    kind: str
    x: float
    y: float
    title: str
    label: str
    label_x: float
    label_y: float
    anchor: str


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """What the template draws, in SVG units of a WIDTH × HEIGHT picture."""

    dots: Sequence[Dot]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = _LEFT
    right: float = WIDTH - _RIGHT
    bottom: float = HEIGHT - _BOTTOM


def kind_of(name: str, *, front: bool, pick: str | None) -> str:
    """A form's kind."""
    return "pick" if name == pick else "front" if front else "beaten"


def scatter(forms: Sequence[Form]) -> Scatter | None:
    """From 0 bytes, and from the least accuracy among them; None without a form."""
    if not forms:
        return None
    largest = max(form.size for form in forms)
    low, high = min(form.accuracy for form in forms), max(form.accuracy for form in forms)
    span = (high - low) or 0.01

    def place(size: float, accuracy: float) -> tuple[float, float]:
        x = _LEFT + (WIDTH - _LEFT - _RIGHT) * size / largest
        return round(x, 1), round(_TOP + (HEIGHT - _TOP - _BOTTOM) * (1 - (accuracy - low) / span), 1)

    # The pick is drawn last, over what it may cover.
    order = {"beaten": 0, "front": 1, "pick": 2}
    dots = [_dot(form, place(form.size, form.accuracy)) for form in sorted(forms, key=lambda f: order[f.kind])]
    return Scatter(
        dots=_apart(dots),
        x_ticks=[
            Tick(at=place(part * largest, low)[0], label=f"{part * largest / 1000:.1f} kB") for part in (0, 0.5, 1)
        ],
        y_ticks=[
            Tick(at=place(0, low + part * span)[1], label=f"{100 * (low + part * span):.1f} %") for part in (0, 0.5, 1)
        ],
    )


def _dot(form: Form, at: tuple[float, float]) -> Dot:
    x, y = at
    named = form.kind in {"pick", "front"}
    right = x < WIDTH - _TEXT
    return Dot(
        kind=form.kind,
        x=x,
        y=y,
        title=form.title,
        label=form.name if named else "",
        label_x=x + 9 if right else x - 9,
        label_y=y + 4,
        anchor="start" if right else "end",
    )


def _apart(dots: Sequence[Dot]) -> list[Dot]:
    """Names moved down where they would cover the one above; the dots in their order."""
    moved: dict[int, Dot] = {}
    for number, dot in sorted(enumerate(dots), key=lambda each: each[1].label_y):
        near = [other for other in moved.values() if other.label and abs(other.label_x - dot.label_x) < _TEXT]
        lowest = max((other.label_y + _GAP for other in near), default=0.0)
        moved[number] = replace(dot, label_y=max(dot.label_y, lowest)) if dot.label else dot
    return [moved[number] for number in range(len(dots))]
