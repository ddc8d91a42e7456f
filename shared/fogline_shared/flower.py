"""Flower messages ↔ what Fogline stores and sends: records as JSON, arrays as one safetensors blob a record.

The only module, beside ``training`` on either side, that knows flwr. Importing it costs a second; the API and the agent
never do. A message's non-array records travel as JSON values; each ArrayRecord is a blob, named by its digest, whose
arrays are read when somebody asks for them, so that a strategy holds one device's array at a time.
"""

from __future__ import annotations

import base64
import io
import math
import mmap
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fogline_shared import tensors
from fogline_shared.errors import Corrupt

# Before flwr is imported: it must not report anywhere, nor look for updates.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Error,
    Message,
    Metadata,
    MetricRecord,
    RecordDict,
)

__all__ = [
    "Address",
    "Array",
    "ArrayRecord",
    "BlobArray",
    "ConfigRecord",
    "Encoded",
    "Error",
    "HeldArray",
    "LazyArray",
    "Message",
    "MetricRecord",
    "RecordDict",
    "arrays_of",
    "assemble",
    "decode",
    "encode",
    "failure",
    "instruction",
    "origin",
    "plain",
    "read_arrays",
    "reason_of",
    "reply",
    "to_record",
]

try:
    from flwr.supercore.task_identity import TaskIdentity
except ImportError:  # a flwr that does not need it
    pass
else:
    # Strategies create messages by Message(content, node, type), which asks the process who it is. Our grids address
    # messages themselves and ignore what this says; a process that stock Flower started knows already.
    if vars(TaskIdentity).get("_run_id") is None:  # asking it aloud raises
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1

# Error.code of a reply: the device's app raised, or the reply's bytes are not what they should be.
DEVICE_FAILED = 2
UNREADABLE_REPLY = 1000

_LONG_TTL_S = 30 * 86_400.0
_LARGEST_PLAIN_FLOAT = 1e15
_NPY_1_0 = b"\x93NUMPY\x01\x00"
# Below this a read is cheaper than a mapping.
_WORTH_MAPPING = 64 * 1024


class LazyArray(Array):
    """An array that becomes .npy bytes, Flower's own form, only when somebody asks for them."""

    @property
    def data(self) -> bytes:  # type: ignore[override]  # Flower's is an attribute; nobody sets it here
        """The array as Flower serialises it (.npy)."""
        buffer = io.BytesIO()
        np.save(buffer, self.numpy(), allow_pickle=False)
        return buffer.getvalue()


class HeldArray(LazyArray):
    """An array in memory. Who makes it does not change it afterwards."""

    def __init__(self, array: NDArray[Any]) -> None:
        # Not Array's: that one writes .npy bytes, and reads them back at each use.
        self.dtype = array.dtype.name
        self.shape = array.shape
        self.stype = "numpy.ndarray"
        self.held = array

    def numpy(self) -> NDArray[Any]:
        """A private, writable copy."""
        return self.held.copy()


class BlobArray(LazyArray):
    """An array that lies in a blob on disk and is read anew at each :meth:`numpy`."""

    def __init__(self, path: Path, spec: tensors.TensorSpec, *, siblings: int) -> None:
        # Not Array's: that one wants the bytes.
        self.dtype = spec.dtype.name
        self.shape = spec.shape
        self.stype = "numpy.ndarray"
        self.path = path
        self.siblings = siblings
        self._offset = spec.offset

    def numpy(self) -> NDArray[Any]:
        """A private, writable copy; of a large array only the pages that are written to."""
        dtype, count = np.dtype(self.dtype), math.prod(self.shape)
        if count * dtype.itemsize < _WORTH_MAPPING or self._offset % dtype.itemsize:
            return np.fromfile(self.path, dtype, count, offset=self._offset).reshape(self.shape)
        start = self._offset - self._offset % mmap.ALLOCATIONGRANULARITY
        with self.path.open("rb") as file:
            length = self._offset - start + count * dtype.itemsize
            pages = mmap.mmap(file.fileno(), length, access=mmap.ACCESS_COPY, offset=start)
        return np.frombuffer(pages, dtype, count, offset=self._offset - start).reshape(self.shape)


def read_arrays(path: Path) -> ArrayRecord:
    """The arrays of a blob, read on demand; raises Corrupt ``bad_tensors``."""
    total = path.stat().st_size
    with path.open("rb") as file:
        length = tensors.header_length(file.read(8))
        file.seek(0)
        specs = tensors.parse_header(file.read(length), total)
    return assemble({spec.name: BlobArray(path, spec, siblings=len(specs)) for spec in specs})


class _Record(ArrayRecord):
    """An ArrayRecord that is emptied without a sweep through the whole heap after it."""

    def to_numpy_ndarrays(self, *, keep_input: bool = True) -> list[NDArray[Any]]:
        """The arrays; without ``keep_input`` the record is empty afterwards.

        Flower's own also writes each array as .npy, to count its bytes, and collects garbage after every update.
        """
        return [(self[name] if keep_input else self.pop(name)).numpy() for name in list(self)]


def assemble(arrays: Mapping[str, Array]) -> ArrayRecord:
    """A record of these very arrays: Flower's constructor would read each one and copy it."""
    record = _Record()
    for name, array in arrays.items():
        record[name] = array
    return record


def arrays_of(record: ArrayRecord) -> dict[str, NDArray[Any]]:
    """All arrays of a record, to be read and not to be changed."""
    return {name: _read_only(array) for name, array in record.items()}


def _read_only(array: Array) -> NDArray[Any]:
    """The array without a copy where there is a way; Flower's own, which strategies return, are .npy bytes in memory."""
    if isinstance(array, HeldArray):
        return array.held
    if isinstance(array, LazyArray) or not array.data.startswith(_NPY_1_0):
        return array.numpy()
    header = io.BytesIO(array.data)
    np.lib.format.read_magic(header)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(header)
    flat = np.frombuffer(array.data, dtype, math.prod(shape), offset=header.tell())
    return flat.reshape(shape, order="F" if fortran else "C")


def to_record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Inverse of :func:`arrays_of`: takes the arrays over, without a copy."""
    return assemble({name: HeldArray(np.asarray(array)) for name, array in arrays.items()})


def plain(content: RecordDict) -> RecordDict:
    """The same, all arrays in Flower's own form: its processes know no classes but theirs."""
    own = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            own[name] = ArrayRecord({key: Array(array) for key, array in arrays_of(record).items()})
        else:
            own[name] = record
    return own


def origin(record: ArrayRecord) -> Path | None:
    """The blob that holds exactly this record, if there is one: it need not be written again."""
    first = next(iter(record.values()), None)
    if not isinstance(first, BlobArray) or first.siblings != len(record):
        return None
    same = all(isinstance(array, BlobArray) and array.path == first.path for array in record.values())
    return first.path if same else None


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A message's content: ``records`` as JSON values, ``arrays`` still to be written, by record name."""

    records: dict[str, Any]
    arrays: dict[str, ArrayRecord]


def encode(content: RecordDict) -> Encoded:
    """Split a content; records keep their order."""
    records: dict[str, Any] = {}
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            records[name] = {"kind": "arrays"}
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            records[name] = {"kind": kind, "values": {key: _to_json(value) for key, value in record.items()}}
    return Encoded(records=records, arrays=dict(content.array_records))


def decode(records: Mapping[str, Any], blobs: Mapping[str, Path]) -> RecordDict:
    """Inverse of :func:`encode`, arrays by path. Raises Corrupt ``bad_records``, ``bad_tensors``."""
    content = RecordDict()
    try:
        for name, record in records.items():
            if record["kind"] == "arrays":
                content[name] = read_arrays(blobs[name])
            else:
                cls = {"metrics": MetricRecord, "config": ConfigRecord}[record["kind"]]
                content[name] = cls({key: _from_json(value) for key, value in record["values"].items()})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Corrupt("bad_records", f"the message's records cannot be read: {error!r}"[:400]) from error
    return content


def _to_json(value: Any) -> Any:
    """JSON that survives every database: bytes, and floats JSON lacks or may turn into integers, are wrapped."""
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not abs(value) < _LARGEST_PLAIN_FLOAT:
        return {"float": repr(value)}
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return [_from_json(item) for item in value]
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"]) if "bytes" in value else float(value["float"])
    return value


@dataclass(frozen=True, kw_only=True)
class Address:
    """What an exchange is about: the id of its message, the node, the round (``group_id``), what is asked."""

    message_id: str
    node_id: int
    group_id: str
    message_type: str


def instruction(content: RecordDict, address: Address) -> Message:
    """A message to a node."""
    a = address
    metadata = Metadata(1, a.message_id, 1, a.node_id, "", a.group_id, time.time(), _LONG_TTL_S, a.message_type)
    return _message(metadata, content=content)


def reply(content: RecordDict | Error, address: Address) -> Message:
    """A node's answer to the message at ``address``."""
    a, own_id = address, f"{address.message_id}-reply"
    metadata = Metadata(1, own_id, a.node_id, 1, a.message_id, a.group_id, time.time(), _LONG_TTL_S, a.message_type)
    return _message(metadata, **{"error" if isinstance(content, Error) else "content": content})


def _message(metadata: Metadata, **body: RecordDict | Error) -> Message:
    # The constructor's typed overloads leave the fully addressed form out.
    message: Message = Message(metadata=metadata, **body)  # type: ignore[call-overload]
    return message


def failure(code: int, name: str, message: str) -> Error:
    """An error whose reason starts with a stable name; :func:`reason_of` takes it apart."""
    return Error(code, f"{name}: {message}"[:2000])


def reason_of(error: Error) -> tuple[str, str]:
    """Stable name and message."""
    name, _, message = (error.reason or "").partition(": ")
    return (name, message) if message and name.isidentifier() else ("device_failed", error.reason or "no reason given")
