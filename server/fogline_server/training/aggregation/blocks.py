"""A round's replies, read block by block: an aggregate of any number of devices fits in a few megabytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from fogline_shared import flower

# Values of each array that are in memory at a time.
BLOCK = 1 << 15


def blocks(records: Sequence[Mapping[str, Any]], name: str) -> Iterator[tuple[slice, list[NDArray[Any]]]]:
    """Where a block lies in the flattened array of that name, and each record's values there, at most ``BLOCK``.

    Records are Flower's ArrayRecords, which agree in the array's shape. The values are to be read, not to be changed.
    """
    flat = [_read(record[name]).reshape(-1) for record in records]
    for start in range(0, flat[0].size, BLOCK):
        part = slice(start, min(start + BLOCK, flat[0].size))
        yield part, [values[part] for values in flat]


def _read(array: Any) -> NDArray[Any]:
    if isinstance(array, flower.HeldArray):
        return array.held
    values: NDArray[Any] = array.view() if isinstance(array, flower.BlobArray) else array.numpy()
    return values
