"""One byte a value and a scale a block of 256 (QSGD: Alistarh et al., NeurIPS 2017, with the largest value as the norm).

A block's scale is its largest magnitude / 127. Rounding is up or down by chance, by how near each is, so the expectation of
what arrives is what was sent, and errors of many devices cancel rather than add.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fogline_shared.codecs.base import Bytes, Floats, join, split
from fogline_shared.errors import Corrupt

BLOCK = 256
LEVELS = 127


@dataclass(frozen=True, kw_only=True)
class Options:
    pass


def nbytes(_options: Options, size: int) -> int:
    return 4 * _blocks(size) + size


def encode(_options: Options, update: Floats, rng: np.random.Generator) -> Bytes:
    values = _in_blocks(update)
    # Towards zero: 127 times the scale of the largest float there is must be a float too.
    scales = np.nextafter(np.abs(values).max(axis=1, initial=0.0) / np.float32(LEVELS), np.float32(0))
    # Of a block of zeros, or of values too small for a scale of their own, every code is 0.
    steps = np.divide(values, scales[:, None], out=np.zeros_like(values), where=scales[:, None] > 0)
    codes = np.floor(steps + rng.random(steps.shape, dtype=np.float32)).clip(-LEVELS, LEVELS)
    return join(scales.astype("<f4", copy=False), codes.astype(np.int8).reshape(-1)[: update.size])


def decode(_options: Options, packed: Bytes, size: int) -> Floats:
    scales, rest = split(packed, "<f4", _blocks(size))
    codes, _ = split(rest, "i1", size)
    if not (np.isfinite(scales) & (scales >= 0)).all():
        raise Corrupt("bad_encoding", "a block's scale is negative or not finite")
    if (codes < -LEVELS).any():
        raise Corrupt("bad_encoding", f"a code is below -{LEVELS}")
    with np.errstate(over="ignore"):
        values = _in_blocks(codes.astype(np.float32)) * scales[:, None].astype(np.float32)
    if not np.isfinite(values).all():
        raise Corrupt("bad_encoding", "a block's scale is too large")
    return values.reshape(-1)[:size]


def _blocks(size: int) -> int:
    return -(-size // BLOCK)


def _in_blocks(values: Floats) -> Floats:
    """The values in rows of one block, the last filled up with zeros."""
    rows = np.zeros((_blocks(values.size), BLOCK), np.float32)
    rows.reshape(-1)[: values.size] = values
    return rows
