from __future__ import annotations

import json
import math
from pathlib import Path

import flwr.app
import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fogline_shared import flower, tensors
from fogline_shared.errors import Corrupt


def test_content_survives_json_and_disk(tmp_path: Path) -> None:
    arrays = {"z": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.zeros((), np.float32)}
    content = RecordDict(
        {
            "arrays": flower.to_record(arrays),
            "metrics": MetricRecord({"n": 3, "loss": 0.5, "bad": math.nan, "big": 1e300, "list": [1.0, math.inf]}),
            "config": ConfigRecord({"text": "x", "raw": b"\x00\xff", "flag": True, "names": ["a", "b"]}),
        }
    )
    encoded = flower.encode(content)
    path = tmp_path / "blob"
    path.write_bytes(b"".join(tensors.encode(flower.arrays_of(encoded.arrays["arrays"]))))
    text = json.dumps(encoded.records, allow_nan=False)
    back = flower.decode(json.loads(text), {"arrays": path})
    assert list(back) == ["arrays", "metrics", "config"]
    assert list(back["arrays"]) == ["z", "a"], "strategies pair arrays by position"
    np.testing.assert_array_equal(back["arrays"]["z"].numpy(), arrays["z"])
    assert math.isnan(back["metrics"]["bad"])
    assert back["metrics"]["big"] == 1e300
    assert back["metrics"]["list"] == [1.0, math.inf]
    assert back["config"] == content["config"]


def test_array_is_read_when_asked_for_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"".join(tensors.encode({"w": np.ones(3, np.float32)})))
    record = flower.read_arrays(path)
    record["w"].numpy()[:] = 7
    np.testing.assert_array_equal(record["w"].numpy(), np.ones(3, np.float32))
    np.testing.assert_array_equal(ArrayRecord(dict(record)).to_numpy_ndarrays()[0], np.ones(3, np.float32))


def test_large_array_is_mapped_and_private(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    # The byte before shifts the large arrays off their alignment.
    arrays = {
        "odd": np.ones(1, np.int8),
        "w": np.arange(50_000, dtype=np.float32).reshape(500, 100),
        "v": np.arange(100_000, dtype=np.int8),
    }
    path.write_bytes(b"".join(tensors.encode(arrays)))
    for record in (flower.read_arrays(path), flower.to_record(arrays)):
        for name, array in arrays.items():
            record[name].numpy()[...] = 7
            np.testing.assert_array_equal(record[name].numpy(), array)
            np.testing.assert_array_equal(flower.arrays_of(record)[name], array)
    path.unlink()
    whole = b"".join(tensors.encode(flower.arrays_of(flower.to_record(arrays))))
    assert whole == b"".join(tensors.encode(arrays))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        np.array(3.0, np.float32),
        np.zeros((0, 4), np.float16),
    ],
    ids=["rows", "columns", "scalar", "empty"],
)
def test_what_strategies_return_is_read_as_flower_reads_it(array: np.ndarray) -> None:
    theirs = flwr.app.Array(array)
    (ours,) = flower.arrays_of(ArrayRecord({"w": theirs})).values()
    np.testing.assert_array_equal(ours, theirs.numpy())
    assert (ours.dtype, ours.shape) == (array.dtype, array.shape)


def test_origin_is_the_blob_that_holds_exactly_the_record(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(b"".join(tensors.encode({"v": np.ones(3, np.float32), "w": np.ones(3, np.float32)})))
    record = flower.read_arrays(path)
    assert flower.origin(record) == path
    assert flower.origin(flower.assemble({"v": record["v"]})) is None
    assert flower.origin(flower.assemble({"w": record["w"], "v": record["v"]})) is None, "its order is another"
    assert flower.origin(flower.to_record({"v": np.ones(3, np.float32)})) is None
    assert flower.origin(ArrayRecord()) is None


@pytest.mark.parametrize("long", [1, 40_000])
def test_record_of_one_type_is_one_vector(tmp_path: Path, long: int) -> None:
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.full(long, 7, np.float32)}
    path = tmp_path / "blob"
    path.write_bytes(b"".join(tensors.encode(arrays)))
    expected = np.concatenate([arrays["b"].reshape(-1), arrays["a"]])
    record = flower.read_arrays(path)
    for each in (record, flower.to_record(arrays)):
        vector = flower.flat(each)
        np.testing.assert_array_equal(vector, expected)
        for name, array in flower.arrays_of(flower.divided(vector, each)).items():
            np.testing.assert_array_equal(array, arrays[name])
    assert flower.flat(flower.assemble({"a": record["a"], "b": record["b"]})) is None, "a blob's order is its own"
    assert flower.flat(ArrayRecord()) is None


def test_record_of_several_types_is_no_vector(tmp_path: Path) -> None:
    arrays = {"w": np.ones(3, np.float32), "n": np.ones(3, np.int64)}
    path = tmp_path / "blob"
    path.write_bytes(b"".join(tensors.encode(arrays)))
    assert flower.flat(flower.read_arrays(path)) is None
    assert flower.flat(flower.to_record(arrays)) is None


@pytest.mark.parametrize(
    "records",
    [
        {"arrays": {"kind": "arrays"}},
        {"metrics": {"kind": "odd", "values": {}}},
        {"metrics": {"kind": "metrics"}},
        {"metrics": {"kind": "metrics", "values": {"loss": {"float": "many"}}}},
        {"metrics": {"kind": "metrics", "values": {"loss": "text"}}},
        {"metrics": 5},
        {"metrics": {"kind": "metrics", "values": [1]}},
    ],
)
def test_records_that_are_none_are_corrupt(records: dict[str, object]) -> None:
    with pytest.raises(Corrupt) as caught:
        flower.decode(records, {})
    assert caught.value.code == "bad_records"


def test_truncated_blob_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    whole = b"".join(tensors.encode({"w": np.ones(30, np.float32)}))
    for cut in (0, 4, 20, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(Corrupt, match="bad_tensors"):
            flower.decode({"arrays": {"kind": "arrays"}}, {"arrays": path})


def test_reason_of_an_error_keeps_its_name() -> None:
    assert flower.reason_of(flower.failure(2, "disk_full", "no space: 3 bytes")) == ("disk_full", "no space: 3 bytes")
    assert flower.reason_of(flower.Error(2, "Traceback (most recent: x")) == (
        "device_failed",
        "Traceback (most recent: x",
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("shape", [True, 3]), ("shape", [1.0, 3]), ("data_offsets", [0.0, 12.0]), ("data_offsets", [False, 12])],
)
def test_sizes_that_only_python_takes_for_whole_numbers_are_corrupt(field: str, value: list[object]) -> None:
    header = {"w": {"dtype": "F32", "shape": [1, 3], "data_offsets": [0, 12]}}
    assert tensors.decode(blob_with(header, bytes(12)))["w"].shape == (1, 3)
    header["w"][field] = value
    with pytest.raises(Corrupt, match="bad_tensors"):
        tensors.decode(blob_with(header, bytes(12)))


def test_header_nested_beyond_pythons_depth_is_corrupt() -> None:
    text = b"[" * 100_000
    with pytest.raises(Corrupt, match="bad_tensors"):
        tensors.decode(len(text).to_bytes(8, "little") + text)


def blob_with(header: dict[str, object], data: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data
