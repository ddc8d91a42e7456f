"""One-dimensional convolutional networks: a teacher of 276 thousand parameters, a student of 14 thousand, a light one of 4."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from fogline_recipes import light

CHANNELS, CLASSES = 6, 7
_block = partial(light.convolution, dimensions=1)
_separable = partial(light.depthwise_separable, kernel=5, stride=2, dimensions=1)


class Residual(nn.Module):
    """Two convolutions around which the input passes (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _block(width, width, 5)
        self.second = _block(width, width, 5, active=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.second(self.first(x)))


def _head(width: int, *, dropout: bool = False) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool1d(1), nn.Flatten(), *[nn.Dropout(0.2)] * dropout, nn.Linear(width, CLASSES)]


def _light(w: int = 16) -> nn.Module:
    return nn.Sequential(
        _block(CHANNELS, w, 7, stride=2),
        _separable(w, 2 * w),
        _separable(2 * w, 4 * w),
        *_head(4 * w),
    )


def _student(w: int = 16) -> nn.Module:
    return nn.Sequential(
        _block(CHANNELS, w, 7, stride=2),
        _block(w, 2 * w, 5, stride=2),
        _block(2 * w, 4 * w, 5, stride=2),
        *_head(4 * w),
    )


def _teacher(w: int = 40) -> nn.Module:
    return nn.Sequential(
        _block(CHANNELS, w, 7, stride=2),
        _block(w, 2 * w, 5, stride=2),
        Residual(2 * w),
        _block(2 * w, 3 * w, 5, stride=2),
        Residual(3 * w),
        *_head(3 * w, dropout=True),
    )


_BUILDERS = {"teacher": _teacher, "student": _student, "light": _light}


def build(size: str) -> nn.Module:
    """A freshly initialised model."""
    return _BUILDERS[size]()
