"""Which of several forms of a model are worth having: those that no other beats in everything. Pure.

Pareto dominance over accuracy, worst-class accuracy, bytes as sent and latency; a pick within limits, with its reasons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fogline_shared.errors import InvalidInput


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One form: shares of examples right, over all and in the worst class; bytes after zstd; median microseconds at batch 1.

    ``p50_us`` is infinite where nobody has measured it.
    """

    name: str
    accuracy: float
    worst_class: float
    size: int
    p50_us: float

    @classmethod
    def of(cls, name: str, metrics: Mapping[str, Any]) -> Measured:
        """From a variant's metrics, which must have an accuracy."""
        return cls(
            name=name,
            accuracy=metrics["accuracy"],
            worst_class=metrics["worst_class_accuracy"],
            size=metrics["bytes_zstd"],
            p50_us=metrics["p50_us"],
        )

    @property
    def latency(self) -> str:
        """In words."""
        return "latency not measured" if math.isinf(self.p50_us) else f"{self.p50_us:g} µs"

    def beats(self, other: Measured) -> bool:
        """As good in everything and better in something."""
        ours = (self.accuracy, self.worst_class, -self.size, -self.p50_us)
        theirs = (other.accuracy, other.worst_class, -other.size, -other.p50_us)
        return ours != theirs and all(a >= b for a, b in zip(ours, theirs, strict=True))


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a class of devices allows; None: anything.

    ``max_drop``: share of accuracy below the float parent's; ``max_worst_class_drop``: the same of the worst class.
    Raises InvalidInput ``invalid_limits``.
    """

    max_bytes: float | None = None
    max_p50_us: float | None = None
    max_drop: float | None = None
    max_worst_class_drop: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("max_bytes", self.max_bytes), ("max_p50_us", self.max_p50_us)):
            if value is not None and not value > 0:
                raise InvalidInput("invalid_limits", f"{name} must be above 0, not {value}")
        for name, value in (("max_drop", self.max_drop), ("max_worst_class_drop", self.max_worst_class_drop)):
            if value is not None and not 0 <= value <= 1:
                raise InvalidInput("invalid_limits", f"{name} is a share between 0 and 1, not {value}")

    def broken_by(self, form: Measured, parent: Measured) -> list[str]:
        """Why a form is out of the question, in words; empty: it is not."""
        reasons = []
        if self.max_bytes is not None and form.size > self.max_bytes:
            reasons.append(f"{form.size} bytes, {self.max_bytes:.0f} allowed")
        if self.max_p50_us is not None and form.p50_us > self.max_p50_us:
            reasons.append(f"{form.latency}, {self.max_p50_us:g} allowed")
        return [*reasons, *self.lost_by(form, parent)]

    def lost_by(self, form: Measured, parent: Measured) -> list[str]:
        """Of these reasons those that are about being right."""
        reasons = []
        drop, worst = round(parent.accuracy - form.accuracy, 6), round(parent.worst_class - form.worst_class, 6)
        # "not <=" rather than ">": a NaN is out.
        if self.max_drop is not None and not drop <= self.max_drop:
            reasons.append(f"loses {drop:.1%}, {self.max_drop:.1%} allowed")
        if self.max_worst_class_drop is not None and not worst <= self.max_worst_class_drop:
            reasons.append(f"loses {worst:.1%} in its worst class, {self.max_worst_class_drop:.1%} allowed")
        return reasons


@dataclass(frozen=True, kw_only=True)
class Pick:
    """The form taken, None: none may be; the sentence that says why; and why each other within no limit was not."""

    taken: Measured | None
    sentence: str
    refused: Mapping[str, Sequence[str]]


def front(forms: Sequence[Measured]) -> list[Measured]:
    """The forms that no other beats, smallest first."""
    kept = [form for form in forms if not any(other.beats(form) for other in forms)]
    return sorted(kept, key=lambda form: (form.size, form.p50_us, form.name))


def rank(form: Measured) -> tuple[float, float, float, int, str]:
    """For sorting, best first: the most accurate; of equals the best in its worst class, the fastest, the smallest."""
    return (-form.accuracy, -form.worst_class, form.p50_us, form.size, form.name)


def pick(
    forms: Sequence[Measured],
    limits: Limits,
    *,
    parent: Measured,
    also: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Pick:
    """Among those within the limits the best by :func:`rank`. ``also``: further reasons against forms, by name."""
    told = {form.name: [*limits.broken_by(form, parent), *also.get(form.name, ())] for form in forms}
    refused = {name: reasons for name, reasons in told.items() if reasons}
    fit = [form for form in forms if form.name not in refused]
    if not fit:
        return Pick(taken=None, sentence=f"none of {len(forms)} is within the limits", refused=refused)
    taken = min(fit, key=rank)
    sentence = (
        f"{taken.name}: {taken.accuracy:.1%} right, the most of {len(fit)} within the limits (its float parent "
        f"{parent.accuracy:.1%}), {taken.size} bytes, {taken.latency}"
    )
    return Pick(taken=taken, sentence=sentence, refused=refused)
