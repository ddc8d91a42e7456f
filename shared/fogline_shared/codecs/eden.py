"""A bit a value, or up to four (EDEN: Vargaftik et al., ICML 2022; of one bit, DRIVE: the same, NeurIPS 2021).

The update is rotated at random: signs by chance, then the Hadamard transform of each block. Whatever it looked like, it is
nearly normal now, so the best levels are known (Lloyd, 1982; Max, 1960) and only a scale a block goes with them: the one
that leaves the shortest residual, as error feedback wants, not the papers' unbiased one. The seed of the signs is sent too,
so that the bytes alone say what they mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fogline_shared.checks import number
from fogline_shared.codecs.base import Bytes, Floats, join, packed_bits, split, split_bits
from fogline_shared.errors import Corrupt

BLOCK = 4096
# Larger values are sent as the first, so that no square overflows; the scales of what is left are far below the second.
LARGEST, LARGEST_SCALE = 1e15, 1e20
# The magnitudes that come nearest to a standard normal's, by the number of bits; the first bit is the sign.
LEVELS = {
    1: (0.79788456,),
    2: (0.45278004, 1.51041761),
    3: (0.24509416, 0.75600525, 1.34390926, 2.15194567),
    4: (0.12839502, 0.38804823, 0.65675900, 0.94234027, 1.25623095, 1.61804605, 2.06901673, 2.73258880),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    bits: int = 1

    def __post_init__(self) -> None:
        number("bits", self.bits, low=min(LEVELS), high=max(LEVELS), code="invalid_option", whole=True)


def nbytes(options: Options, size: int) -> int:
    return 4 + 4 * -(-size // _block(size)) + -(-options.bits * size // 8)


def encode(options: Options, update: Floats, rng: np.random.Generator) -> Bytes:
    seed = int(rng.integers(1 << 32))
    rotated = _rotated(update.clip(-LARGEST, LARGEST), seed)
    starts = np.arange(0, update.size, _block(update.size))
    magnitudes, levels = np.abs(rotated), np.array(LEVELS[options.bits], np.float32)
    deviations = np.sqrt(np.add.reduceat(rotated * rotated, starts) / np.diff(starts, append=update.size))
    # Of a block too small to have a deviation, every value is of the first level.
    units = _spread(np.maximum(deviations, 1e-30), update.size)
    places = np.zeros(update.size, np.uint8)
    for edge in (levels[1:] + levels[:-1]) / 2:
        places += magnitudes > edge * units
    chosen = levels[places]
    scales = np.add.reduceat(magnitudes * chosen, starts) / np.add.reduceat(chosen * chosen, starts)
    planes = [rotated < 0, *(places >> plane & 1 for plane in range(options.bits - 1))]
    return join(np.array([seed], "<u4"), scales.astype("<f4"), packed_bits(np.array(planes)))


def decode(options: Options, packed: Bytes, size: int) -> Floats:
    seed, rest = split(packed, "<u4", 1)
    scales, rest = split(rest, "<f4", -(-size // _block(size)))
    if not ((scales >= 0) & (scales <= LARGEST_SCALE)).all():
        raise Corrupt("bad_encoding", f"a block's scale is not from 0 to {LARGEST_SCALE:g}")
    bits, _ = split_bits(rest, options.bits * size)
    negative, *planes = bits.reshape(options.bits, size)
    places = sum((plane << number for number, plane in enumerate(planes)), np.zeros(size, np.uint8))
    values = np.array(LEVELS[options.bits], np.float32)[places] * _spread(scales.astype(np.float32), size)
    return _rotated_back(np.where(negative, -values, values), int(seed[0]))


def _block(size: int) -> int:
    """The largest power of two that fits."""
    return min(BLOCK, 1 << max(size.bit_length() - 1, 0))


def _spread(of_blocks: Floats, size: int) -> Floats:
    every: Floats = np.repeat(of_blocks, _block(size))[:size]
    return every


def _rotated(values: Floats, seed: int) -> Floats:
    """Block by block; what is left over is rotated with the values before it, for which it is the second time. No padding."""
    size, block = values.size, _block(values.size)
    whole, signs = size - size % block, _signs(size + block, seed)
    turned = values * signs[:size]
    turned[:whole] = _hadamard(turned[:whole], block)
    if whole < size:
        turned[-block:] = _hadamard(turned[-block:] * signs[size:], block)
    return turned


def _rotated_back(turned: Floats, seed: int) -> Floats:
    """The same steps from the last to the first: each is its own inverse."""
    size, block = turned.size, _block(turned.size)
    whole, signs = size - size % block, _signs(size + block, seed)
    values = turned.copy()
    if whole < size:
        values[-block:] = _hadamard(values[-block:], block) * signs[size:]
    values[:whole] = _hadamard(values[:whole], block)
    values *= signs[:size]
    return values


def _hadamard(values: Floats, block: int) -> Floats:
    """Each block in the orthonormal Walsh-Hadamard basis: log2(block) passes of sums and differences, on any machine the same."""
    for _ in range(block.bit_length() - 1):
        halves = values.reshape(-1, 2, block // 2)
        values = np.stack((halves[:, 0] + halves[:, 1], halves[:, 0] - halves[:, 1]), axis=-1).reshape(-1)
    return values * np.float32(block**-0.5)


def _signs(count: int, seed: int) -> Floats:
    """Ones and minus ones. From the raw stream, which numpy keeps over its versions, as it does not a Generator's."""
    raw = np.random.PCG64(seed).random_raw(-(-count // 64)).astype("<u8").view(np.uint8)
    return np.where(np.unpackbits(raw, count=count), np.float32(-1), np.float32(1))
