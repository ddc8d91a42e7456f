"""Only the largest values of each array: their values in half precision, and their places.

``fraction`` of an array's values is sent, at least one; the rest waits in the device's residual until it is large enough
(Aji and Heafield, EMNLP 2017; Stich et al., NeurIPS 2018). Places rise, so they take log2(1/fraction) + 2 bits or so each:
their low bits as they are, of their high bits how often each occurs, in unary (Elias, JACM 1974; Fano, 1971). Unlike
Rice's or arithmetic codes, that is as long for one update as for another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from fogline_shared.checks import number
from fogline_shared.codecs.base import Bytes, Floats, join, packed_bits, split, split_bits
from fogline_shared.codecs.fp16 import LARGEST
from fogline_shared.errors import Corrupt


@dataclass(frozen=True, kw_only=True)
class Options:
    fraction: float = 0.1

    def __post_init__(self) -> None:
        # Above half there is little left to leave out.
        number("fraction", self.fraction, low=0.0001, high=0.5, code="invalid_option")


def nbytes(options: Options, size: int) -> int:
    kept, low, marks = _layout(options, size)
    return 2 * kept + -(-low * kept // 8) + -(-marks // 8)


def encode(options: Options, update: Floats, _rng: np.random.Generator) -> Bytes:
    kept, low, marks = _layout(options, update.size)
    places = np.sort(np.argpartition(np.abs(update), update.size - kept)[update.size - kept :])
    unary = np.zeros(marks, np.uint8)
    unary[(places >> low) + np.arange(kept)] = 1
    lows = places[:, None] >> np.arange(low) & 1
    values = update[places].clip(-LARGEST, LARGEST).astype("<f2")
    return join(values, packed_bits(lows), packed_bits(unary))


def decode(options: Options, packed: Bytes, size: int) -> Floats:
    kept, low, marks = _layout(options, size)
    values, rest = split(packed, "<f2", kept)
    lows, rest = split_bits(rest, low * kept)
    unary, _ = split_bits(rest, marks)
    ones = np.flatnonzero(unary)
    if ones.size != kept:
        raise Corrupt("bad_encoding", f"{ones.size} places for {kept} values")
    places = (ones - np.arange(kept) << low) + lows.reshape(kept, low) @ (1 << np.arange(low))
    if kept and (int(places[-1]) >= size or not (places[:-1] < places[1:]).all()):
        raise Corrupt("bad_encoding", f"places must rise and be below {size}")
    if not np.isfinite(values).all():
        raise Corrupt("bad_encoding", "values are not finite")
    dense = np.zeros(size, np.float32)
    dense[places] = values
    return dense


def _layout(options: Options, size: int) -> tuple[int, int, int]:
    """How many values are sent, how many bits of a place are its low ones, and how many bits all high ones take."""
    kept = min(size, math.ceil(options.fraction * size))
    low = (size // kept).bit_length() - 1 if kept else 0
    return kept, low, kept + (max(size - 1, 0) >> low)
