"""A round's replies, read block by block: an aggregate of any number of devices fits in a few megabytes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared import flower

# Values of each array that are in memory at a time, and for how many the blob stays mapped: the pages that were read of a
# mapping stay resident until it goes.
BLOCK = 1 << 15
STRETCH = 8 * BLOCK


def blocks(
    records: Sequence[Mapping[str, Any]], name: str, dtype: type[np.floating[Any]] | None = None
) -> Iterator[tuple[slice, NDArray[Any]]]:
    """Where a block lies in the flattened array of that name, and the records' values there: (records, m), m at most ``BLOCK``.

    Records are Flower's ArrayRecords, which agree in the array's shape. The values are a copy, in ``dtype`` or the array's own.
    """
    size = math.prod(records[0][name].shape)
    for far in range(0, size, STRETCH):
        flat = [_read(record[name]).reshape(-1) for record in records]
        for start in range(far, min(far + STRETCH, size), BLOCK):
            part = slice(start, min(start + BLOCK, size))
            yield part, np.stack([values[part] for values in flat], dtype=dtype)
        del flat


def _read(array: Any) -> NDArray[Any]:
    if isinstance(array, flower.HeldArray):
        return array.held
    values: NDArray[Any] = array.view() if isinstance(array, flower.BlobArray) else array.numpy()
    return values
