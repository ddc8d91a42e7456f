from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fogline_server.batch.model import plan_shards
from fogline_server.batch.reader import RowReader


@pytest.fixture
def reader(tmp_path: Path) -> RowReader:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"n": np.arange(1000), "other": np.zeros(1000)}), path, row_group_size=170)
    return RowReader(str(path))


def rows(reader: RowReader, first: int, count: int, row_bytes: int = 1 << 18) -> list[int]:
    batches = list(reader.read(first, count, ["n"], row_bytes=row_bytes))
    return [n for batch in batches for n in batch.column("n").to_pylist()]


def test_any_range_in_any_order_gives_exactly_its_rows(reader: RowReader) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        first = int(rng.integers(0, 1000))
        count = int(rng.integers(0, 1000 - first + 1))
        assert rows(reader, first, count) == list(range(first, first + count))


def test_ascending_shards_decode_each_row_once(reader: RowReader) -> None:
    opened: list[int] = []
    original = reader._file.iter_batches

    class Counting:
        metadata = reader._file.metadata

        def iter_batches(self, *args, **kwargs):
            opened.append(1)
            return original(*args, **kwargs)

    reader._file = Counting()
    for shard in plan_shards(1000, 130):
        assert rows(reader, shard.first_row, shard.rows)[0] == shard.first_row
    assert len(opened) == 1


def test_shards_cover_every_row_once() -> None:
    for total in (0, 1, 99, 100, 101):
        covered = [n for s in plan_shards(total, 10) for n in range(s.first_row, s.first_row + s.rows)]
        assert covered == list(range(total))
