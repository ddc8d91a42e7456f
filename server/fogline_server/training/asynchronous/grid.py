"""The grid of an asynchronous run: a step takes the first updates to come, whatever version they began from.

Nothing but this differs from synchronous rounds. Devices that have not answered stay at work; what they send later is in the
buffer of a later step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from numpy.typing import NDArray
from sqlalchemy.orm import Session

from fogline_server.jobs.doorbell import DEVICES
from fogline_server.training.admission import quorum_of
from fogline_server.training.asynchronous import buffer
from fogline_server.training.asynchronous.staleness import may_step, rebase
from fogline_server.training.grid import LOOK_EVERY_S, GatewayGrid, Parts, Phase
from fogline_server.training.pacing import GIVE_UP_FACTOR
from fogline_server.training.rounds import ARRAYS
from fogline_server.training.tables import Task, Update
from fogline_shared import flower
from fogline_shared.errors import Conflict
from fogline_shared.flower import Message

# A step that asks nobody has a message for it all the same: devices that come while it waits get the same.
NOBODY = 0
# Between two looks for devices that have come, or are free again, while a step waits.
_REFILL_EVERY = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What an asynchronous step goes by. ``version``: digest of the present parameters; ``needed``: fewest usable updates.

    ``refill(session)`` adds devices to the step's cohort, in the caller's transaction, and returns them by node id.
    """

    version: str
    running: Collection[str]
    size: int
    max_staleness: int
    needed: int
    opened_at: datetime
    refill: Callable[[Session], Mapping[int, str]]


class AsynchronousGatewayGrid(GatewayGrid):
    """The grid of one step. ``staleness``: by node, of the updates that it took; ``devices``: who sent them, by node."""

    def __init__(self, phase: Phase, parts: Parts, step: Step) -> None:
        super().__init__(phase, parts)
        self.staleness: dict[int, int] = {}
        self.devices: dict[int, str] = {}
        self._step = step
        self._refilled_at = parts.clock()
        self._versions: dict[str, Mapping[str, NDArray[Any]]] = {}

    def get_node_ids(self) -> Iterable[int]:
        """Who is asked in this step."""
        return self._nodes or (NOBODY,)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Ask the step's devices; wait for the buffer to fill; the updates it holds, as updates of the present parameters.

        It is full with ``size`` usable updates; with fewer when nobody is at work; at the deadline with the quorum of what could
        have come. Raises Conflict ``quorum_not_reached`` long after the deadline, and whatever ``on_wait`` raises.
        """
        del timeout
        messages = list(messages)
        if self._nodes:
            self.push_messages(messages)
        answers = self._taken()
        since = self._since()
        while not answers:
            if self._full(since):
                answers = self._take()
            elif not self._refill(messages[0]):
                self._parts.waiter.wait(LOOK_EVERY_S)
        return [self._told(update, task) for update, task in answers]

    def _taken(self) -> Sequence[tuple[Update, Task]]:
        with self._parts.db.read() as session:
            return buffer.taken(session, self._phase.run_id, self._phase.round)

    def _since(self) -> int:
        """The earliest round whose updates are looked at."""
        number = self._phase.round
        with self._parts.db.read() as session:
            oldest = buffer.oldest(session, self._phase.run_id, default=number)
        return max(oldest, number - self._step.max_staleness)

    def _full(self, since: int) -> bool:
        step, now = self._step, self._parts.clock()
        with self._parts.db.read() as session:
            level = buffer.level(session, self._phase.run_id, since=since, now=now)
        aim = min(step.size, level.usable + level.pending)
        self._parts.on_wait(level.usable, aim)
        waited_s = (now - step.opened_at).total_seconds()
        ready = may_step(
            usable=level.usable,
            pending=level.pending,
            size=step.size,
            quorum=self._phase.quorum,
            needed=step.needed,
            overdue=waited_s >= self._phase.deadline_s,
        )
        # When all have failed there is nothing to wait for: the step fails with what they said.
        if ready or (level.failed and not level.pending):
            return True
        if waited_s >= GIVE_UP_FACTOR * self._phase.deadline_s:
            needed = max(step.needed, quorum_of(self._phase.quorum, aim))
            raise Conflict(
                "quorum_not_reached",
                f"round {self._phase.round}: {level.usable} usable updates came in {waited_s:.0f} s; {needed} needed",
            )
        return False

    def _take(self) -> Sequence[tuple[Update, Task]]:
        run_id, number = self._phase.run_id, self._phase.round
        with self._parts.db.transaction() as session:
            self._parts.lease.check(session)
            buffer.take(session, run_id, number, size=self._step.size, max_staleness=self._step.max_staleness)
        return self._taken()

    def _refill(self, message: Message) -> bool:
        """Whether devices were asked that have come since the step was opened, or have become free."""
        now = self._parts.clock()
        if now < self._refilled_at + _REFILL_EVERY:
            return False
        self._refilled_at = now
        with self._parts.db.transaction() as session:
            self._parts.lease.check(session)
            nodes = self._step.refill(session)
            self._phase = replace(self._phase, nodes={**self._phase.nodes, **nodes})
            for node in nodes:
                address = flower.Address(
                    message_id="", node_id=node, group_id="", message_type=message.metadata.message_type
                )
                session.add(self._task(flower.instruction(message.content, address), now))
        if nodes:
            self._parts.doorbell.ring(DEVICES, ",".join(nodes.values()))
        return bool(nodes)

    def _told(self, update: Update, task: Task) -> Message:
        reply = self._reply(update, task)
        if update.code:
            return reply
        self.devices[task.node_id] = task.device_id
        self.staleness[task.node_id] = self._phase.round - task.round
        sent = next(blob["digest"] for blob in task.blobs if blob["record"] == ARRAYS)
        if sent == self._step.version:
            return reply
        present = self._version(self._step.version)
        return rebase(reply, self._version(sent), present, arrays=ARRAYS, running=self._step.running)

    def _version(self, digest: str) -> Mapping[str, NDArray[Any]]:
        if digest not in self._versions:
            self._versions[digest] = flower.arrays_of(flower.read_arrays(self._parts.blobs.path(digest)))
        return self._versions[digest]
