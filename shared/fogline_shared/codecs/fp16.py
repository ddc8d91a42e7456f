"""Half precision: two bytes a value, eleven significant bits.

Rounded to nearest. Values beyond ±65504 become that; values below 6e-8 become zero until enough of them have added up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fogline_shared.codecs.base import Bytes, Floats, join, split
from fogline_shared.errors import Corrupt

LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True, kw_only=True)
class Options:
    pass


def nbytes(_options: Options, size: int) -> int:
    return 2 * size


def encode(_options: Options, update: Floats, _rng: np.random.Generator) -> Bytes:
    return join(update.clip(-LARGEST, LARGEST).astype("<f2"))


def decode(_options: Options, packed: Bytes, size: int) -> Floats:
    values, _ = split(packed, "<f2", size)
    if not np.isfinite(values).all():
        raise Corrupt("bad_encoding", "values are not finite")
    return values.astype(np.float32)
