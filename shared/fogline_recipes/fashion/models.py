"""Networks for 28x28 grey images: two students of nine thousand parameters, a teacher of 242 thousand."""

from __future__ import annotations

from torch import nn

from fogline_recipes.light import ShuffleUnit, convolution, depthwise_separable

CLASSES = 10


def _head(width: int, *, dropout: float = 0.0) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(width, CLASSES)]


def _student(w: int = 16) -> nn.Module:
    return nn.Sequential(
        convolution(1, w, 3, stride=2),
        depthwise_separable(w, 2 * w),
        depthwise_separable(2 * w, 4 * w, stride=2),
        depthwise_separable(4 * w, 4 * w),
        *_head(4 * w),
    )


def _shuffle(w: int = 16) -> nn.Module:
    return nn.Sequential(
        convolution(1, w, 3, stride=2),
        ShuffleUnit(w, w),
        ShuffleUnit(w, 4 * w, stride=2),
        ShuffleUnit(4 * w, 4 * w),
        ShuffleUnit(4 * w, 4 * w),
        *_head(4 * w),
    )


def _teacher(w: int = 32) -> nn.Module:
    return nn.Sequential(
        convolution(1, w, 3),
        convolution(w, 2 * w, 3, stride=2),
        convolution(2 * w, 4 * w, 3, stride=2),
        convolution(4 * w, 4 * w, 3),
        *_head(4 * w, dropout=0.2),
    )


_BUILDERS = {"teacher": _teacher, "student": _student, "shuffle": _shuffle}


def build(size: str) -> nn.Module:
    """A freshly initialised model: standardised (n, 1, 28, 28) to logits (n, 10)."""
    return _BUILDERS[size]()
