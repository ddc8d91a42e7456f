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
import weakref
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
    "divided",
    "encode",
    "failure",
    "flat",
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

    def _is(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        # Past Array's own attributes, which forget what was computed of the former ones: there are none yet.
        vars(self).update(dtype=tensors.name_of(dtype), shape=shape, stype="numpy.ndarray")

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
        self._is(array.dtype, array.shape)
        self.held = array

    def numpy(self) -> NDArray[Any]:
        """A private, writable copy."""
        return self.held.copy()


class _Blob:
    """A file of arrays, mapped for as long as somebody looks at one of them."""

    def __init__(self, path: Path, specs: tuple[tensors.TensorSpec, ...]) -> None:
        self.path, self.specs = path, specs
        self._mapped: weakref.ref[NDArray[np.uint8]] | None = None

    def read(self) -> NDArray[np.uint8]:
        """All bytes, read-only."""
        known = None if self._mapped is None else self._mapped()
        if known is not None:
            return known
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size > _WORTH_MAPPING else file.read()
        content = np.frombuffer(pages, np.uint8)
        self._mapped = weakref.ref(content)
        return content


class BlobArray(LazyArray):
    """An array that lies in a blob on disk and is read anew at each :meth:`numpy`."""

    def __init__(self, blob: _Blob, spec: tensors.TensorSpec) -> None:
        # Not Array's: that one wants the bytes.
        self._is(spec.dtype, spec.shape)
        self.blob = blob
        self.spec = spec

    def view(self) -> NDArray[Any]:
        """The array to be read, without a copy where its place allows it."""
        offset, spec = self.spec.offset, self.spec
        raw = self.blob.read()[offset : offset + spec.nbytes]
        return (raw.copy() if offset % spec.dtype.itemsize else raw).view(spec.dtype).reshape(spec.shape)

    def numpy(self) -> NDArray[Any]:
        """A private, writable copy; of a large array only the pages that are written to."""
        dtype, nbytes, offset = self.spec.dtype, self.spec.nbytes, self.spec.offset
        if nbytes < _WORTH_MAPPING or offset % dtype.itemsize:
            return self.view().copy()
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        with self.blob.path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), offset - start + nbytes, access=mmap.ACCESS_COPY, offset=start)
        count = nbytes // dtype.itemsize
        return np.frombuffer(pages, dtype, count, offset=offset - start).reshape(self.shape)


def read_arrays(path: Path) -> ArrayRecord:
    """The arrays of a blob, read on demand; raises Corrupt ``bad_tensors``."""
    with path.open("rb") as file:
        total = os.fstat(file.fileno()).st_size
        length = tensors.header_length(file.read(8))
        file.seek(0)
        specs = tensors.parse_header(file.read(length), total)
    blob = _Blob(path, specs)
    return assemble({spec.name: BlobArray(blob, spec) for spec in specs})


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
    if isinstance(array, BlobArray):
        return array.view()
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
    blob = _blob_of(record)
    return None if blob is None else blob.path


def flat(record: ArrayRecord) -> NDArray[Any] | None:
    """All values in the order of the arrays as one vector, to be read and not to be changed; None where arrays are of several types.

    Of a record that is a blob it is the blob itself, of arrays in memory a copy. There is none of arrays that are made when
    they are read (decoded ones, say): all of them at once may be more than memory holds.
    """
    blob = _blob_of(record)
    if blob is not None:
        dtype, start = blob.specs[0].dtype, blob.specs[0].offset
        if start % dtype.itemsize or any(spec.dtype != dtype for spec in blob.specs):
            return None
        return blob.read()[start:].view(dtype)
    held = [array.held for array in record.values() if isinstance(array, HeldArray)]
    if not held or len(held) < len(record) or any(array.dtype != held[0].dtype for array in held):
        return None
    return held[0].reshape(-1) if len(held) == 1 else np.concatenate([array.reshape(-1) for array in held])


def divided(vector: NDArray[Any], like: ArrayRecord) -> ArrayRecord:
    """Inverse of :func:`flat`: a record with the names and shapes of ``like``, whose arrays are parts of the vector."""
    arrays, start = {}, 0
    for name, array in like.items():
        end = start + math.prod(array.shape)
        arrays[name] = vector[start:end].reshape(array.shape)
        start = end
    return to_record(arrays)


def _blob_of(record: ArrayRecord) -> _Blob | None:
    """The blob whose arrays these are: all of them, in its order."""
    first = next(iter(record.values()), None)
    if not isinstance(first, BlobArray) or len(first.blob.specs) != len(record):
        return None
    blob = first.blob
    for array, spec in zip(record.values(), blob.specs, strict=True):
        if not isinstance(array, BlobArray) or array.blob is not blob or array.spec is not spec:
            return None
    return blob


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
