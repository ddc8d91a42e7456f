"""Sensors on a serial line: lines of numbers, or binary frames of a declared struct, from a terminal device, FIFO or socket.

Whatever does not fit is skipped until the next thing that does: a line, or the frame's first bytes with a checksum that holds.
"""

from __future__ import annotations

import binascii
import math
import re
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import xor
from pathlib import Path
from struct import Struct

import numpy as np

from fogline_client.sources import _bytes
from fogline_client.sources import _options as options
from fogline_client.sources.base import Options, Sample
from fogline_shared.errors import InvalidInput

_CHECKSUMS: dict[str, tuple[int, Callable[[bytes], int]]] = {
    "none": (0, lambda _: 0),
    "sum8": (1, lambda payload: sum(payload) & 0xFF),
    "xor8": (1, lambda payload: reduce(xor, payload, 0)),
    "crc16": (2, lambda payload: binascii.crc_hqx(payload, 0)),
}
_SEPARATORS = re.compile(rb"[,;\s]+")
_LONGEST_LINE = 65_536


@dataclass(frozen=True, kw_only=True)
class SensorArray(Options):
    """``path`` as for ``json_lines``; ``baud`` for a terminal device, 0: as it is. All but one of the numbers are values.

    ``format``: ``lines`` of ``fields`` numbers, or ``binary``: after the bytes ``sync`` (hexadecimal) a ``struct`` in Python's
    notation, then a ``checksum`` of the struct's bytes: ``sum8``, ``xor8``, ``crc16`` (XMODEM, little-endian) or ``none``.
    ``time_field``: which number is the time, from 0 on; -1: none, samples are of the moment. It is in units of
    ``time_scale`` seconds, values in units of ``scale``.

    Flaws: ``bad_line``, ``garbage`` (runs of bytes that begin no frame), ``bad_checksum``. Raises InvalidInput
    ``invalid_source_option``.
    """

    path: str | Path
    format: str = "lines"
    fields: int = 0
    struct: str = ""
    sync: str = ""
    checksum: str = "none"
    time_field: int = -1
    time_scale: float = 1.0
    scale: float = 1.0
    baud: int = 0

    def __post_init__(self) -> None:
        options.text(self, "path")
        options.word(self, "format", ("lines", "binary"))
        options.word(self, "checksum", tuple(_CHECKSUMS))
        for name, low, high, whole in (
            ("fields", 0, 4096, True),
            ("time_field", -1, 4095, True),
            ("time_scale", 1e-12, 1e9, False),
            ("scale", -1e12, 1e12, False),
            ("baud", 0, 10_000_000, True),
        ):
            options.number(self, name, low=low, high=high, whole=whole)
        numbers = self._frame()[1] if self.format == "binary" else self.fields
        if numbers < 1 + (self.time_field >= 0) or self.time_field >= numbers:
            message = f"{numbers} fields with time_field {self.time_field}: there is no value among them"
            raise InvalidInput("invalid_source_option", message, field="fields")

    def samples(self, stop: threading.Event | None = None) -> Iterator[Sample]:
        """What is whole; raises as :func:`_bytes.chunks`."""
        found = self._frames(stop) if self.format == "binary" else self._lines(stop)
        for numbers in found:
            time = None
            if self.time_field >= 0:
                time = numbers.pop(self.time_field) * self.time_scale
            yield Sample(x=np.asarray(numbers, dtype=np.float32) * np.float32(self.scale), time=time)

    def _lines(self, stop: threading.Event | None) -> Iterator[list[float]]:
        for line in _bytes.lines(self.path, stop, limit=_LONGEST_LINE, baud=self.baud):
            try:
                numbers = [float(word) for word in _SEPARATORS.split(line.strip())] if line is not None else []
            except ValueError:
                numbers = []
            if len(numbers) == self.fields:
                yield numbers
            elif line is None or line.strip():
                self.flaws["bad_line"] += 1

    def _frames(self, stop: threading.Event | None) -> Iterator[list[float]]:
        layout, _ = self._frame()
        sync, (width, checksum) = bytes.fromhex(self.sync), _CHECKSUMS[self.checksum]
        size = len(sync) + layout.size + width
        data, lost = b"", False
        for chunk in _bytes.chunks(self.path, stop, baud=self.baud):
            data += chunk
            while True:
                start = data.find(sync)
                skipped = start if start >= 0 else max(len(data) - len(sync) + 1, 0)
                if skipped and not lost:
                    self.flaws["garbage"] += 1
                lost = lost or skipped > 0
                data = data[skipped:]
                if start < 0 or len(data) < size:
                    break
                payload = data[len(sync) : len(sync) + layout.size]
                if int.from_bytes(data[len(sync) + layout.size : size], "little") != checksum(payload):
                    self.flaws["bad_checksum"] += 1
                    # The true beginning may be within what looked like a frame.
                    data, lost = data[1:], True
                    continue
                data, lost = data[size:], False
                yield [float(number) for number in layout.unpack(payload)]

    def _frame(self) -> tuple[Struct, int]:
        """The struct, and how many numbers it has; raise InvalidInput ``invalid_source_option``."""
        try:
            layout = Struct(self.struct)
            numbers = layout.unpack(bytes(layout.size))
            sync = bytes.fromhex(self.sync)
        except (struct.error, TypeError, ValueError) as error:
            message = f"struct is in Python's notation, sync hexadecimal: {error}"
            raise InvalidInput("invalid_source_option", message, field="struct") from error
        if not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers):
            raise InvalidInput("invalid_source_option", f"struct {self.struct!r} has more than numbers", field="struct")
        if not sync:
            message = "a binary frame begins with the bytes of sync: without them no beginning is found again"
            raise InvalidInput("invalid_source_option", message, field="sync")
        return layout, len(numbers)


SOURCE = SensorArray
