"""Which operations make one artifact of another in few bytes. Pure.

Tensors are paired by name and their difference is taken in numbers of their own width; what lies between two tensors is paired
with what lies between them in the base; anything else is looked for in the whole base, in blocks, as rsync does (Tridgell, 1999).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fogline_server.registry.deltas.tensors import Tensor, tensors
from fogline_shared import delta
from fogline_shared.delta import Kind, Operation

_KIND = {1: Kind.BYTES, 2: Kind.HALVES, 4: Kind.WORDS}
# Bytes that must be alike to be looked for in the base; a run of equal bytes shorter than this is not copied by itself.
_BLOCK = 32
# A run of equal bytes may join two differences when it is shorter than this.
_SEAM = 16


def pack(target: bytes) -> bytes:
    """The delta from nothing: the file compressed."""
    return delta.encode(b"", target, [Operation(Kind.LITERAL, len(target))] if target else [])


def build(base: bytes, target: bytes) -> bytes:
    """The delta that makes ``target`` of ``base``, whatever both are; good for two artifacts of one graph."""
    return delta.encode(base, target, list(_merged(_operations(base, target))))


def _operations(base: bytes, target: bytes) -> Iterator[Operation]:
    """Tensor by tensor through the target, with the gap before each."""
    known = {tensor.name: tensor for tensor in tensors(base)}
    blocks = _Blocks(base)
    at, expected = 0, 0
    for new in tensors(target):
        old = known.get(new.name)
        if old is None or old.length != new.length or new.start < at:
            continue
        yield from _gap(blocks, (expected, old.start), target, (at, new.start))
        yield from _number_by_number(base, old, target, new)
        at, expected = new.end, old.end
    yield from _gap(blocks, (expected, len(base)), target, (at, len(target)))


def _number_by_number(base: bytes, old: Tensor, target: bytes, new: Tensor) -> Iterator[Operation]:
    before, after = base[old.start : old.end], target[new.start : new.end]
    yield _cheapest(_KIND[new.width], before, after, old.start)


def _cheapest(kind: Kind, before: bytes, after: bytes, start: int) -> Operation:
    """The same bytes copied; others as a difference, or as they are where nothing of the base is left in them."""
    if before == after:
        return Operation(Kind.COPY, len(after), start)
    planes = delta.difference(kind, before, after)
    if sum(map(_entropy, planes)) < _entropy(np.frombuffer(after, np.uint8)):
        return Operation(kind, len(after), start)
    return Operation(Kind.LITERAL, len(after))


def _entropy(values: NDArray[np.uint8]) -> float:
    """Bits that a code of single bytes needs for all of them (Shannon, 1948)."""
    counts = np.bincount(values, minlength=256)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / len(values))).sum())


class _Blocks:
    """Where each block of the base lies first, by its bytes; found when it is first asked for."""

    def __init__(self, base: bytes) -> None:
        self.base = base
        self._places: dict[bytes, int] | None = None

    def place(self, block: bytes) -> int | None:
        if self._places is None:
            self._places = {}
            for first in range(0, len(self.base) - _BLOCK + 1, _BLOCK):
                self._places.setdefault(self.base[first : first + _BLOCK], first)
        return self._places.get(block)


def _gap(blocks: _Blocks, old: tuple[int, int], target: bytes, new: tuple[int, int]) -> Iterator[Operation]:
    length = new[1] - new[0]
    if length == old[1] - old[0]:
        yield from _side_by_side(blocks, old[0], target, new[0], length)
    else:
        yield from _anywhere(blocks, target, *new)


def _side_by_side(blocks: _Blocks, old: int, target: bytes, new: int, length: int) -> Iterator[Operation]:
    """Runs that are alike and runs that are not, in two stretches of the same length. A run may have changed its place."""
    before, after = blocks.base[old : old + length], target[new : new + length]
    alike = np.frombuffer(before, np.uint8) == np.frombuffer(after, np.uint8)
    edges = [0, *(np.flatnonzero(alike[1:] != alike[:-1]) + 1).tolist(), length]
    for start, end in _joined([(a, b, bool(alike[a])) for a, b in pairwise(edges) if b > a]):
        operation = _cheapest(Kind.BYTES, before[start:end], after[start:end], old + start)
        if operation.kind is Kind.LITERAL:
            yield from _anywhere(blocks, target, new + start, new + end)
        else:
            yield operation


def _joined(runs: list[tuple[int, int, bool]]) -> Iterator[tuple[int, int]]:
    """The runs, with short ones that are alike taken into the differences around them."""
    start = 0
    for first, last, alike in runs:
        if alike and (last - first >= _SEAM or first == 0):
            if first > start:
                yield start, first
            yield first, last
            start = last
    if runs and runs[-1][1] > start:
        yield start, runs[-1][1]


def _anywhere(blocks: _Blocks, target: bytes, start: int, end: int) -> Iterator[Operation]:
    """Blocks of the base wherever they turn up in the target between two places, the first found; literals between."""
    base = blocks.base
    at, literal = start, start
    while at <= end - _BLOCK:
        if (place := blocks.place(target[at : at + _BLOCK])) is None:
            at += 1
            continue
        back = _alike_backwards(base, place, target, at, at - literal)
        ahead = _alike(base, place, target, at, end)
        if at - back > literal:
            yield Operation(Kind.LITERAL, at - back - literal)
        yield Operation(Kind.COPY, back + ahead, place - back)
        at = literal = at + ahead
    if end > literal:
        yield Operation(Kind.LITERAL, end - literal)


def _alike(base: bytes, old: int, target: bytes, new: int, end: int) -> int:
    """How many bytes from both places on are the same."""
    length, most = 0, min(len(base) - old, end - new)
    while length < most:
        step = min(1 << 12, most - length)
        before, after = base[old + length :][:step], target[new + length :][:step]
        if before != after:
            return length + next(i for i in range(step) if before[i] != after[i])
        length += step
    return length


def _alike_backwards(base: bytes, old: int, target: bytes, new: int, most: int) -> int:
    length = 0
    while length < min(most, old) and base[old - length - 1] == target[new - length - 1]:
        length += 1
    return length


def _merged(operations: Iterator[Operation]) -> Iterator[Operation]:
    """Neighbours of one kind that go on where the other ended, as one; nothing of no length."""
    last: Operation | None = None
    for each in operations:
        if not each.length:
            continue
        goes_on = (
            last is not None
            and last.kind is each.kind
            and (each.kind is Kind.LITERAL or last.start + last.length == each.start)
        )
        if last is not None and goes_on:
            last = Operation(last.kind, last.length + each.length, last.start)
            continue
        if last is not None:
            yield last
        last = each
    if last is not None:
        yield last
