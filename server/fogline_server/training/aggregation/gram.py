"""Lengths and distances of updates from their Gram matrix (the scalar products of all pairs)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


def lengths(gram: Matrix) -> Vector:
    """Lengths of the rows, (n,)."""
    own: Vector = np.sqrt(np.diag(gram).clip(min=0.0))
    return own


def distances(gram: Matrix, point: Vector) -> Vector:
    """Distances of the rows from ``point @ rows``, (n,)."""
    squares = np.diag(gram) - 2.0 * (gram @ point) + point @ gram @ point
    far: Vector = np.sqrt(squares.clip(min=0.0))
    return far


def shrink(size: Vector, limit: float) -> Vector:
    """The factors, at most 1, that bring ``size`` down to ``limit``."""
    return np.minimum(1.0, limit / np.maximum(size, np.finfo(np.float64).tiny))


def nearest_to_their_neighbours(gram: Matrix, *, liars: int, count: int) -> NDArray[np.intp]:
    """The ``count`` rows whose n - ``liars`` - 2 nearest neighbours are nearest, best first (Blanchard et al., 2017)."""
    squares = np.diag(gram)
    apart = (squares[:, None] + squares - 2.0 * gram).clip(min=0.0)
    np.fill_diagonal(apart, np.inf)
    neighbours = max(1, len(gram) - liars - 2)
    scores = np.sort(apart, axis=1)[:, :neighbours].sum(axis=1)
    return np.argsort(scores, kind="stable")[:count]


def mix_with_neighbours(gram: Matrix, *, liars: int) -> Matrix:
    """What makes of each row the mean of the n - ``liars`` rows nearest to it, itself among them: (n, n), rows sum to 1."""
    squares = np.diag(gram)
    apart = squares[:, None] + squares - 2.0 * gram
    np.fill_diagonal(apart, -np.inf)
    kept = max(1, len(gram) - liars)
    mixing = np.zeros_like(gram)
    np.put_along_axis(mixing, np.argsort(apart, axis=1, kind="stable")[:, :kept], 1.0 / kept, axis=1)
    return mixing
