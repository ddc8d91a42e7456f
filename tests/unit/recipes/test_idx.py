from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from idx_files import encoded

from fogline_recipes import idx
from fogline_shared.errors import Corrupt, Unavailable

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def test_plain_and_compressed_files_read_alike(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(encoded(ARRAY))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(encoded(ARRAY)))
    for name in ("plain", "packed"):
        np.testing.assert_array_equal(idx.read(tmp_path, name), ARRAY)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no file images or images\.gz") as caught:
        idx.read(tmp_path, "images")
    assert caught.value.code == "no_dataset"


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\x00\x00\x08",
        b"\x00\x00\x0d" + encoded(ARRAY)[3:],
        encoded(ARRAY)[:9],
        encoded(ARRAY)[:-1],
        encoded(ARRAY) + b"\x00",
        b"\x00\x00\x08\x04" + b"\xff" * 16,
    ],
    ids=["empty", "short", "floats", "no lengths", "truncated", "longer", "absurd lengths"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "images").write_bytes(damaged)
    with pytest.raises(Corrupt) as caught:
        idx.read(tmp_path, "images")
    assert caught.value.code == "bad_dataset"


@pytest.mark.parametrize("end", [3, 40, -1])
def test_a_truncated_archive_is_refused(tmp_path: Path, end: int) -> None:
    (tmp_path / "images.gz").write_bytes(gzip.compress(encoded(ARRAY))[:end])
    with pytest.raises(Corrupt, match="cannot be read"):
        idx.read(tmp_path, "images")
