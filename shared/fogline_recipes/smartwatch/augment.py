"""Augmentation in the sensor's own units: what differs between people who wear the watch and move.

Tempo, the other wrist, the strap's angle, vigour and the sensor's gain; each is drawn per example.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from fogline_recipes.smartwatch.data import HOP, WIDTH, Recordings
from fogline_shared.recipe import Dataset

# Logarithm of the largest change of tempo: 0.74 to 1.35 times.
_TEMPO = 0.3
# Standard deviation of the strap's angle, radians per axis.
_ANGLE = 0.2
# Logarithm of the largest change of rotation rates.
_VIGOUR = 0.6
_GAIN = 0.1
# Left and right wrist are mirror images: signs of (ax, ay, az, rotation x, y, z).
_MIRROR = (-1.0, 1.0, 1.0, 1.0, -1.0, -1.0)


def augmented(data: Dataset, indices: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """Raw windows x (n, 6, WIDTH) float32 and labels y (n,). ``data.source`` is :class:`Recordings`."""
    source: Recordings = data.source
    n = len(indices)
    x = _resampled(source, indices, generator)
    flipped = (_uniform(generator, n, 1, 1) > 0).float()
    x = x * (1 - flipped) + x * torch.tensor(_MIRROR) * flipped
    turn = _rotations(torch.randn(n, 3, generator=generator) * _ANGLE)
    vigour = torch.exp(_uniform(generator, n, 1, 1) * _VIGOUR)
    x = torch.cat([x[..., :3] @ turn, x[..., 3:] @ turn * vigour], -1)
    x = x * (1 + _GAIN * torch.randn(n, 1, 6, generator=generator))
    return x.transpose(1, 2).contiguous(), torch.from_numpy(data.y[indices.numpy()])


def _uniform(generator: Generator, *shape: int) -> Tensor:
    """Uniform in [-1, 1)."""
    return torch.rand(*shape, generator=generator) * 2 - 1


def _resampled(source: Recordings, indices: Tensor, generator: Generator) -> Tensor:
    """(n, WIDTH, 6): windows shifted by up to half a hop and played faster or slower, within their recording."""
    n, chosen = len(indices), indices.numpy()
    start, first, last = (torch.from_numpy(a[chosen]).float() for a in (source.start, source.first, source.last))
    tempo = torch.minimum(torch.exp(_uniform(generator, n) * _TEMPO), (last - first - 1) / (WIDTH - 1))
    shifted = start + _uniform(generator, n) * HOP / 2
    begin = torch.maximum(torch.minimum(shifted, last - tempo * (WIDTH - 1) - 0.01), first)
    position = begin[:, None] + torch.arange(WIDTH) * tempo[:, None]
    left = position.floor().long()
    fraction = (position - left)[..., None]
    series = torch.from_numpy(source.series)
    x = series[left] * (1 - fraction) + series[left + 1] * fraction
    # A faster movement turns faster.
    x[..., 3:] *= tempo[:, None, None]
    return x


def _rotations(vectors: Tensor) -> Tensor:
    """Rotation matrices (n, 3, 3), transposed for row vectors, by Rodrigues' formula."""
    angle = vectors.norm(dim=1).clamp_min(1e-6)
    x, y, z = (vectors / angle[:, None]).unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    sin, cos = angle.sin()[:, None, None], angle.cos()[:, None, None]
    turn: Tensor = torch.eye(3) + sin * cross + (1 - cos) * (cross @ cross)
    return turn.transpose(1, 2)
