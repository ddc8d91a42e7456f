"""Updates as they are: four bytes a value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fogline_shared.codecs.base import Bytes, Floats, join, split
from fogline_shared.errors import Corrupt


@dataclass(frozen=True, kw_only=True)
class Options:
    pass


def nbytes(_options: Options, size: int) -> int:
    return 4 * size


def encode(_options: Options, update: Floats, _rng: np.random.Generator) -> Bytes:
    return join(update.astype("<f4", copy=False))


def decode(_options: Options, packed: Bytes, size: int) -> Floats:
    values, _ = split(packed, "<f4", size)
    if not np.isfinite(values).all():
        raise Corrupt("bad_encoding", "values are not finite")
    return values.astype(np.float32)
