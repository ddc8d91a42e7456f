"""Gaussian noise from a key, by SHAKE-256: who has not got the key cannot tell it from chance, and the same key gives it again. Pure."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Vectors = Mapping[str, NDArray[np.float64]]


def gaussian(key: bytes, count: int) -> NDArray[np.float64]:
    """Standard normal values from a key (Box, Muller), which do not tell the key."""
    pairs = (count + 1) // 2
    words = np.frombuffer(hashlib.shake_256(key).digest(16 * pairs), "<u8").reshape(2, pairs)
    uniform = ((words >> 11) + 1) / 2.0**53
    radius, angle = np.sqrt(-2 * np.log(uniform[0])), 2 * np.pi * uniform[1]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


def key_of(secret: bytes, about: str, vectors: Vectors) -> bytes:
    """The key of the noise for exactly these vectors.

    The same again has the same noise, so nobody gets two noisy versions of it to average; another has noise of its own: were the
    vectors no part of the key, two releases would differ by the bare difference of what they hide.
    """
    digest = hashlib.sha256()
    for part in vectors.values():
        digest.update(part.tobytes())
    return hmac.digest(secret, about.encode() + digest.digest(), "sha256")


def drawn(key: bytes, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The noise of one array under a key."""
    return gaussian(hmac.digest(key, name.encode(), "sha256"), math.prod(shape)).reshape(shape)


def scale_to(clip: float, length: float) -> float:
    """What to multiply a vector of that length by, so that it is no longer than ``clip``."""
    return min(1.0, clip / length) if length else 1.0


def length_of(vectors: Vectors) -> float:
    """Of all of them as one vector."""
    return math.sqrt(sum(float(np.sum(part**2)) for part in vectors.values()))
