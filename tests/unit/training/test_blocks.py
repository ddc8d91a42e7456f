"""Blobs are read in blocks, and what was read of them does not stay in memory."""

from pathlib import Path

import numpy as np

from fogline_server.training.aggregation.blocks import BLOCK, STRETCH, blocks
from fogline_shared import flower, tensors


def blob(folder: Path, number: int, size: int) -> Path:
    path = folder / f"{number}.blob"
    with path.open("wb") as file:
        file.writelines(tensors.encode({"w": np.arange(size, dtype=np.float32) + number}))
    return path


def test_blocks_cover_the_array_in_order(tmp_path: Path) -> None:
    size = STRETCH + BLOCK + 3
    records = [flower.read_arrays(blob(tmp_path, number, size)) for number in range(3)]
    parts = list(blocks(records, "w", np.float64))
    assert max(values.shape[1] for _, values in parts) == BLOCK
    assert [part.start for part, _ in parts] == list(range(0, size, BLOCK))
    whole = np.hstack([values for _, values in parts])
    assert whole.dtype == np.float64
    assert np.array_equal(whole, np.arange(size) + np.arange(3)[:, None])


def test_a_blob_is_mapped_no_longer_than_it_is_read(tmp_path: Path) -> None:
    path = blob(tmp_path, 0, STRETCH + 5)
    reading = blocks([flower.read_arrays(path)], "w")
    _, first = next(reading)
    assert str(path) in Path("/proc/self/maps").read_text()
    rest = [values for _, values in reading]
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert first.shape[1] + sum(values.shape[1] for values in rest) == STRETCH + 5
