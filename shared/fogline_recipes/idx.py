"""Read IDX files, the format of MNIST and its kin: a magic number, big-endian lengths, bytes. Plain or gzip.

Format: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "File formats".
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fogline_shared.errors import Corrupt, Unavailable

_UNSIGNED_BYTE = 8
# No data set of images is larger; a damaged header may claim anything.
_LARGEST = 1 << 32


def read(folder: Path, name: str) -> NDArray[np.uint8]:
    """The array of ``folder/name`` or ``folder/name.gz``.

    Raises Unavailable ``no_dataset`` when there is neither, Corrupt ``bad_dataset`` for anything but an IDX file of bytes.
    """
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return _parse(path)
    raise Unavailable("no_dataset", f"no file {name} or {name}.gz in {folder}", folder=str(folder))


def _parse(path: Path) -> NDArray[np.uint8]:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, OSError, zlib.error) as error:
        raise Corrupt("bad_dataset", f"{path.name} cannot be read: {error}") from error
    header = 4 + 4 * data[3] if len(data) > 3 else 4
    if len(data) < header or data[:3] != bytes([0, 0, _UNSIGNED_BYTE]):
        raise Corrupt("bad_dataset", f"{path.name} is not an IDX file of bytes")
    shape = np.frombuffer(data[4:header], ">u4").tolist()
    if math.prod(shape) > _LARGEST or len(data) != header + math.prod(shape):
        raise Corrupt("bad_dataset", f"{path.name} has {len(data)} bytes, which do not fit its lengths {shape}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
