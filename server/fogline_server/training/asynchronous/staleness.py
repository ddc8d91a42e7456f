"""Asynchronous steps, live or simulated: when the buffer is full enough, and how updates of earlier versions are compared. Pure.

An update of an earlier version is told as one of the present: then admission and rules need know nothing of its age.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from numpy.typing import NDArray

from fogline_server.training.admission import quorum_of
from fogline_shared import flower
from fogline_shared.flower import ArrayRecord, LazyArray, Message


def may_step(*, usable: int, pending: int, size: int, quorum: float, needed: int, overdue: bool) -> bool:
    """Whether a step takes the ``usable`` updates of its buffer, or waits for the ``pending`` devices at work.

    It takes ``size`` at once; fewer, but at least ``needed``, when nobody is at work, or when the step is ``overdue`` and the
    share ``quorum`` of what could have come has come.
    """
    if usable >= size:
        return True
    if usable < needed:
        return False
    return not pending or (overdue and usable >= quorum_of(quorum, min(size, usable + pending)))


class RebasedArray(LazyArray):
    """The present parameters plus what a device added to those that it was sent."""

    def __init__(self, own: flower.Array, sent: NDArray[Any], present: NDArray[Any]) -> None:
        # Not Array's: that one wants the bytes.
        self.dtype, self.shape, self.stype = own.dtype, own.shape, own.stype
        self._own, self._sent, self._present = own, sent, present

    def numpy(self) -> NDArray[Any]:
        """A private, writable array; raises what reading the device's own raises."""
        moved: NDArray[Any] = self._own.numpy() - self._sent
        moved += self._present
        return moved


def rebase(
    reply: Message,
    sent: Mapping[str, NDArray[Any]],
    present: Mapping[str, NDArray[Any]],
    *,
    arrays: str,
    running: Collection[str],
) -> Message:
    """The reply as if the device had begun at ``present``. ``arrays``: the record's name.

    Running statistics stay as they are: a difference of two variances, added to a third, may be negative. So does what does
    not fit the model: for admission to judge.
    """
    record = None if reply.has_error() else reply.content.get(arrays)
    if not isinstance(record, ArrayRecord):
        return reply
    told = {}
    for name in record:
        array, old = record[name], sent.get(name)
        fits = old is not None and name not in running and _fits(array, old)
        told[name] = RebasedArray(array, old, present[name]) if fits and old is not None else array
    reply.content[arrays] = flower.assemble(told)
    return reply


def _fits(array: flower.Array, sent: NDArray[Any]) -> bool:
    return tuple(array.shape) == sent.shape and array.dtype == sent.dtype.name
