"""Only the largest values of each array: their places (four bytes each) and their values (two).

``fraction`` of an array's values is sent, at least one; the rest waits in the device's residual until it is large enough
(Aji and Heafield, EMNLP 2017; Stich et al., NeurIPS 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fogline_shared.checks import number
from fogline_shared.codecs.base import Bytes, Floats, join, split
from fogline_shared.codecs.fp16 import LARGEST
from fogline_shared.errors import Corrupt


@dataclass(frozen=True, kw_only=True)
class Options:
    fraction: float = 0.05

    def __post_init__(self) -> None:
        # Above half, a value with its place is no smaller than values without.
        number("fraction", self.fraction, low=0.0001, high=0.5, code="invalid_option")


def nbytes(options: Options, size: int) -> int:
    return (4 + 2) * _kept(options, size)


def encode(options: Options, update: Floats, _rng: np.random.Generator) -> Bytes:
    kept = _kept(options, update.size)
    places = np.sort(np.argpartition(np.abs(update), update.size - kept)[update.size - kept :])
    return join(places.astype("<u4"), update[places].clip(-LARGEST, LARGEST).astype("<f2"))


def decode(options: Options, packed: Bytes, size: int) -> Floats:
    kept = _kept(options, size)
    places, rest = split(packed, "<u4", kept)
    values, _ = split(rest, "<f2", kept)
    if kept and (int(places[-1]) >= size or not (places[:-1] < places[1:]).all()):
        raise Corrupt("bad_encoding", f"places must rise and be below {size}")
    if not np.isfinite(values).all():
        raise Corrupt("bad_encoding", "values are not finite")
    dense = np.zeros(size, np.float32)
    dense[places] = values
    return dense


def _kept(options: Options, size: int) -> int:
    return min(size, math.ceil(options.fraction * size))
