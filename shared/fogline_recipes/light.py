"""Blocks of light architectures, over one dimension (signals) or two (images). Bias-free convolutions, each with BatchNorm.

What they save is multiplications and parameters; whether that is time depends on the runtime and the CPU: a depthwise
convolution does little work for the memory it reads. Measure on the device class.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fogline_shared.errors import InvalidInput

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}
_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}


def convolution(
    inputs: int,
    outputs: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    dimensions: int = 2,
    active: bool = True,
) -> nn.Sequential:
    """Convolution, BatchNorm and, if ``active``, ReLU. (n, inputs, …) to (n, outputs, …), each length divided by ``stride``."""
    layers = [
        _CONVOLUTIONS[dimensions](inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        _NORMS[dimensions](outputs),
    ]
    return nn.Sequential(*layers, *[nn.ReLU()] * active)


def depthwise_separable(
    inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, dimensions: int = 2
) -> nn.Sequential:
    """Each channel by itself, then all channels at each place (Howard et al., MobileNets, 2017, arXiv:1704.04861)."""
    return nn.Sequential(
        convolution(inputs, inputs, kernel, stride=stride, groups=inputs, dimensions=dimensions),
        convolution(inputs, outputs, 1, dimensions=dimensions),
    )


class InvertedResidual(nn.Module):
    """Widen, depthwise, narrow without ReLU; the input passes around where shapes allow (MobileNetV2: Sandler et al., CVPR 2018)."""

    def __init__(
        self, inputs: int, outputs: int, *, widen: int = 4, kernel: int = 3, stride: int = 1, dimensions: int = 2
    ) -> None:
        super().__init__()
        wide = widen * inputs
        self.passes = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            convolution(inputs, wide, 1, dimensions=dimensions),
            convolution(wide, wide, kernel, stride=stride, groups=wide, dimensions=dimensions),
            convolution(wide, outputs, 1, dimensions=dimensions, active=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.passes else y


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half are worked on, then they change places (ShuffleNetV2: Ma et al., ECCV 2018).

    With ``stride`` above 1 both halves are worked on, each from all inputs. Raises InvalidInput ``invalid_block`` for odd
    numbers of channels, and for other outputs than inputs at stride 1.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, dimensions: int = 2) -> None:
        super().__init__()
        if outputs % 2 or (stride == 1 and inputs != outputs):
            raise InvalidInput(
                "invalid_block", f"a shuffle unit of stride {stride} cannot turn {inputs} into {outputs}"
            )
        half = outputs // 2
        self.splits = stride == 1
        worked = half if self.splits else inputs
        self.body = nn.Sequential(
            convolution(worked, half, 1, dimensions=dimensions),
            convolution(half, half, kernel, stride=stride, groups=half, dimensions=dimensions, active=False),
            convolution(half, half, 1, dimensions=dimensions),
        )
        self.short = (
            nn.Identity()
            if self.splits
            else nn.Sequential(
                convolution(inputs, inputs, kernel, stride=stride, groups=inputs, dimensions=dimensions, active=False),
                convolution(inputs, half, 1, dimensions=dimensions),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        passing, worked = x.chunk(2, 1) if self.splits else (x, x)
        both = torch.stack([self.short(passing), self.body(worked)], 2)
        return both.flatten(1, 2)
