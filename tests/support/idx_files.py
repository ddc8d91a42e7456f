"""IDX files as MNIST and its kin come in, and a folder with a data set of that form for the recipe ``fashion``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

TRAINING, TEST = 4000, 50


def encoded(array: NDArray[np.uint8]) -> bytes:
    """An IDX file of bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_fashion(folder: Path, *, training: int = TRAINING) -> None:
    """Four files: each class is a bright bar at a height of its own, over noise."""
    rng = np.random.default_rng(0)
    for part, count in (("train", training), ("t10k", TEST)):
        y = (np.arange(count) % 10).astype(np.uint8)
        x = rng.integers(0, 60, (count, 28, 28), dtype=np.uint8)
        x[np.arange(count)[:, None], 4 + 2 * y[:, None].astype(int) + np.arange(2)] = 200
        (folder / f"{part}-images-idx3-ubyte").write_bytes(encoded(x))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(encoded(y))
