"""One-dimensional convolutional networks: a student of 14 thousand parameters, a teacher of 276 thousand."""

from __future__ import annotations

from torch import Tensor, nn

CHANNELS, CLASSES = 6, 7


class Residual(nn.Module):
    """Two convolutions around which the input passes (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _block(width, width, 5, 1)
        self.second = nn.Sequential(nn.Conv1d(width, width, 5, padding=2, bias=False), nn.BatchNorm1d(width))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(x + self.second(self.first(x)))


def _block(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv1d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(outputs), nn.ReLU())


def _student(w: int = 16) -> nn.Module:
    return nn.Sequential(
        _block(CHANNELS, w, 7, 2),
        _block(w, 2 * w, 5, 2),
        _block(2 * w, 4 * w, 5, 2),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(4 * w, CLASSES),
    )


def _teacher(w: int = 40) -> nn.Module:
    return nn.Sequential(
        _block(CHANNELS, w, 7, 2),
        _block(w, 2 * w, 5, 2),
        Residual(2 * w),
        _block(2 * w, 3 * w, 5, 2),
        Residual(3 * w),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(3 * w, CLASSES),
    )


_BUILDERS = {"teacher": _teacher, "student": _student}


def build(size: str) -> nn.Module:
    """A freshly initialised model."""
    return _BUILDERS[size]()
