"""Where to cut a blob so that a tensor that did not change is the same piece again.

Safetensors are cut by their header, ONNX files by a walk that is handed in, anything else in lengths that fit in memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

# The longest piece: what is held in memory, and sent in one request.
LONGEST = 8 << 20
# Tensors below it stay with what surrounds them: an object costs more than they save.
SHORTEST = 4 << 10
# Blobs below it stay whole, for the same reason.
WHOLE = 64 << 10
_MAX_HEADER = 16 << 20
_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}


class Span(Protocol):
    """A tensor's numbers of ``width`` bytes: ``length`` bytes from ``start``."""

    @property
    def start(self) -> int: ...
    @property
    def length(self) -> int: ...
    @property
    def width(self) -> int: ...


# Finds the tensors of an ONNX file; of what is none, nothing.
Tensors = Callable[[bytes], Sequence[Span]]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """``length`` bytes from ``start``, numbers of ``width`` bytes."""

    start: int
    length: int
    width: int = 1


def no_tensors(_data: bytes) -> Sequence[Span]:
    """For a store that knows no ONNX."""
    return ()


def pieces(data: bytes, tensors: Tensors) -> list[Piece]:
    """Pieces that cover ``data`` in its order; one, where cutting would not pay."""
    if len(data) < WHOLE:
        return [Piece(start=0, length=len(data))]
    spans = _safetensors(data) or tensors(data)
    cut: list[Piece] = []
    at = 0
    for span in _apart(spans, len(data)):
        cut += _lengths(Piece(start=at, length=span.start - at))
        cut += _lengths(Piece(start=span.start, length=span.length, width=span.width))
        at = span.start + span.length
    return cut + list(_lengths(Piece(start=at, length=len(data) - at)))


def _apart(spans: Iterable[Span], size: int) -> Iterable[Span]:
    """Those long enough, in order, none over another or over the end: whatever a file claims."""
    at = 0
    for span in sorted(spans, key=lambda each: each.start):
        if span.length >= SHORTEST and span.start >= at and span.start + span.length <= size:
            yield span
            at = span.start + span.length


def _lengths(piece: Piece) -> Iterable[Piece]:
    end = piece.start + piece.length
    for start in range(piece.start, end, LONGEST):
        yield Piece(start=start, length=min(LONGEST, end - start), width=piece.width)


def _safetensors(data: bytes) -> Sequence[Span]:
    """The tensors that a safetensors header names; nothing, if there is no such header."""
    size = int.from_bytes(data[:8], "little")
    if not 2 <= size <= min(_MAX_HEADER, len(data) - 8) or data[8:9] != b"{":
        return ()
    try:
        header = json.loads(data[8 : 8 + size])
        found = []
        for name, entry in header.items():
            if name != "__metadata__":
                first, last = entry["data_offsets"]
                width = _WIDTHS.get(entry["dtype"], 1)
                found.append(Piece(start=8 + size + int(first), length=int(last) - int(first), width=width))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()
    return found
