"""The last answers in one file of a fixed size: what a device did lately, without a network.

A head of one slot, then slots in a circle. A record is its number, its length, a checksum and JSON, written by one call into
the oldest slot. A process that is killed leaves whole records; one that was half written is known by its checksum.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fogline_client import durable
from fogline_client.streams.answers import Answer
from fogline_client.streams.checks import text
from fogline_shared.checks import number
from fogline_shared.errors import Conflict, Corrupt, Exhausted, InvalidInput

_MAGIC = b"FLRING1\n"
_HEAD = struct.Struct("<8sII")  # magic, slots, bytes of a slot
_RECORD = struct.Struct("<QII")  # number, from 1; length of the JSON; CRC-32 of number, length and JSON


@dataclass(frozen=True, kw_only=True)
class Ring:
    """``slots`` answers of up to ``slot_bytes`` each, less 16, are kept. Raises InvalidInput ``invalid_pipeline``."""

    path: str | Path
    slots: int = 4096
    slot_bytes: int = 1024

    def __post_init__(self) -> None:
        text("path", self.path)
        number("slots", self.slots, low=1, high=1 << 24, whole=True, code="invalid_pipeline")
        number("slot_bytes", self.slot_bytes, low=64, high=1 << 20, whole=True, code="invalid_pipeline")

    def open(self) -> OpenRing:
        """Go on behind the newest record.

        Raises Conflict ``ring_in_use``, Corrupt ``bad_ring`` when the file is something else, Exhausted ``disk_full``,
        InvalidInput ``invalid_pipeline`` when it cannot be opened or its slots are others.
        """
        path = Path(self.path)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise InvalidInput("invalid_pipeline", f"the ring {path} cannot be opened: {error}") from error
        try:
            return OpenRing(self, path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise


class OpenRing:
    """An OpenSink. The file stays locked."""

    def __init__(self, ring: Ring, path: Path, descriptor: int) -> None:
        self._ring = ring
        self._descriptor = descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict("ring_in_use", f"another process writes {path}", path=str(path)) from error
        if not os.fstat(descriptor).st_size:
            with durable.full_disk_named(path):
                os.pwrite(descriptor, _HEAD.pack(_MAGIC, ring.slots, ring.slot_bytes), 0)
        slots, slot_bytes = _head(descriptor, path)
        if (slots, slot_bytes) != (ring.slots, ring.slot_bytes):
            message = f"{path} has {slots} slots of {slot_bytes} bytes: move it away, or ask for those"
            raise InvalidInput("invalid_pipeline", message)
        with durable.full_disk_named(path):
            # All of it at once: the disk may be full today, not some other day.
            os.posix_fallocate(descriptor, 0, (1 + slots) * slot_bytes)
        self._number = max((n for n, _ in _records(descriptor, slots, slot_bytes)), default=0)

    def deliver(self, answer: Answer) -> None:
        """Replace the oldest record; raise Exhausted ``record_too_large``."""
        body = json.dumps(answer.facts(), separators=(",", ":")).encode()
        if _RECORD.size + len(body) > self._ring.slot_bytes:
            message = f"a record of {len(body)} bytes has no room in a slot of {self._ring.slot_bytes}"
            raise Exhausted("record_too_large", message, limit=self._ring.slot_bytes)
        self._number += 1
        place = (1 + self._number % self._ring.slots) * self._ring.slot_bytes
        os.pwrite(self._descriptor, _packed(self._number, body), place)

    def close(self) -> None:
        """Close the file, and unlock it."""
        os.close(self._descriptor)


def read_ring(path: Path) -> list[dict[str, Any]]:
    """What a ring holds, oldest first, while somebody writes it or not.

    Raises Corrupt ``bad_ring`` when it is none, and InvalidInput ``ring_not_readable``.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InvalidInput("ring_not_readable", f"{path} cannot be read: {error}", path=str(path)) from error
    try:
        slots, slot_bytes = _head(descriptor, path)
        return [record for _, record in sorted(_records(descriptor, slots, slot_bytes), key=lambda found: found[0])]
    finally:
        os.close(descriptor)


def _packed(record_number: int, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(struct.pack("<QI", record_number, len(body))))
    return _RECORD.pack(record_number, len(body), checksum) + body


def _head(descriptor: int, path: Path) -> tuple[int, int]:
    try:
        magic, slots, slot_bytes = _HEAD.unpack(os.pread(descriptor, _HEAD.size, 0))
    except (struct.error, OSError) as error:
        raise Corrupt("bad_ring", f"{path} is no ring: {error}", path=str(path)) from error
    if magic != _MAGIC or not slots or slot_bytes < _RECORD.size:
        raise Corrupt("bad_ring", f"{path} is no ring", path=str(path))
    return slots, slot_bytes


def _records(descriptor: int, slots: int, slot_bytes: int) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole records, in the order of their slots, with their numbers."""
    for slot in range(1, slots + 1):
        content = os.pread(descriptor, slot_bytes, slot * slot_bytes)
        if len(content) < _RECORD.size:
            return
        record_number, length, _ = _RECORD.unpack_from(content)
        body = content[_RECORD.size : _RECORD.size + length]
        if record_number and content[: _RECORD.size + length] == _packed(record_number, body):
            yield record_number, json.loads(body)


SINK = Ring
