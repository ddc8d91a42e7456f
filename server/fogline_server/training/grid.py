"""Flower's grid over the edge gateway. Messages are task rows, replies are update rows; the gateway moves them.

Everything is in SQL and blobs, so a trainer that was killed asks again and goes on waiting for the same replies: a phase
sends its tasks once, whoever asks, and closes once; what came in before the close is what counts, for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import DEVICES, Doorbell, Waiter
from fogline_server.jobs.runner import Lease
from fogline_server.training.admission import quorum_of
from fogline_server.training.cohort_grid import CohortGrid
from fogline_server.training.pacing import GIVE_UP_FACTOR
from fogline_server.training.tables import Task, Update
from fogline_shared import flower, tensors
from fogline_shared.errors import Conflict, Corrupt, FoglineError
from fogline_shared.flower import Address, ArrayRecord, Message, RecordDict
from fogline_shared.protocol import BlobRef
from fogline_shared.states import UpdateVerdict

# How long a lost ring may delay a round.
LOOK_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One exchange with a cohort: a round's ``query``, ``train`` or ``evaluate``.

    ``nodes``: device id by node id, in the cohort's order. ``target``: it closes when so many have sent what is no error;
    None: when all have answered. ``attempt``: a round that failed is sent again, under the next number.
    """

    run_id: str
    recipe: str
    round: int
    kind: str
    nodes: Mapping[int, str]
    quorum: float
    deadline_s: float
    max_reply_bytes: int
    target: int | None = None
    attempt: int = 1

    def task_id(self, node_id: int) -> str:
        """The same for whoever sends it: sending twice is sending once."""
        number = str(self.round) if self.attempt == 1 else f"{self.round}.{self.attempt}"
        return f"{self.run_id}-{number}-{self.kind}-{node_id}"


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a grid works with. ``on_wait(answered, of)`` is called while it waits and may raise to stop it."""

    db: Database
    blobs: BlobStore
    doorbell: Doorbell
    waiter: Waiter
    lease: Lease
    on_wait: Callable[[int, int], None]
    clock: Callable[[], datetime] = utc_now


class GatewayGrid(CohortGrid):
    """The grid of one phase."""

    def __init__(self, phase: Phase, parts: Parts) -> None:
        super().__init__(list(phase.nodes))
        self._phase = phase
        self._parts = parts
        self._written: dict[int, BlobRef] = {}
        self._read: set[str] = set()
        self._sent_at: datetime | None = None
        # Asked at each look: built once.
        self._state = (
            select(
                func.count().filter(Task.closed.is_(False)).label("pending"),
                func.count(Update.task_id).label("answered"),
                func.count(Update.task_id).filter(Update.code == "").label("usable"),
            )
            .select_from(Task)
            .outerjoin(Update, Update.task_id == Task.id)
            .where(*self._mine())
        )

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Send, unless this phase was sent before; return the task ids."""
        messages = list(messages)
        ids = [self._phase.task_id(message.metadata.dst_node_id) for message in messages]
        now = self._parts.clock()
        # Before the transaction: parameters that are new go to disk.
        tasks = [self._task(message, now) for message in messages]
        with self._parts.db.transaction() as session:
            self._parts.lease.check(session)
            sent_at = session.scalars(select(Task.created_at).where(*self._mine()).limit(1)).one_or_none()
            self._sent_at = sent_at or now
            if sent_at is not None:
                return ids
            session.add_all(tasks)
        self._parts.doorbell.ring(DEVICES, ",".join(task.device_id for task in tasks))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """The replies so far that count, by node."""
        wanted = set(message_ids)
        with self._parts.db.read() as session:
            return [reply for reply in self._replies(session) if reply.metadata.reply_to_message_id in wanted]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Send and wait: for all, or at the deadline for the quorum. ``timeout`` is the phase's, not the caller's.

        Raises Conflict ``quorum_not_reached`` when too few have answered long after the deadline, and whatever
        ``on_wait`` raises.
        """
        del timeout
        ids = self.push_messages(messages)
        if not ids:
            return []
        assert self._sent_at is not None, "they were pushed"
        while missing := self._missing(self._sent_at, len(ids)):
            # Each answer rings once; a look in between would find the round as open as before.
            self._parts.waiter.wait(LOOK_EVERY_S, rings=missing)
        with self._parts.db.transaction() as session:
            self._parts.lease.check(session)
            # Closing before reading: the gateway locks the task's row, so a reply is either read here or late.
            session.execute(update(Task).where(*self._mine(), Task.closed.is_(False)).values(closed=True))
            return self._replies(session)

    def release(self) -> None:
        """The replies will not be read again: their pages need not crowd others out of the machine's memory."""
        for digest in self._read:
            self._parts.blobs.cool(digest)

    def _missing(self, sent_at: datetime, sent: int) -> int:
        """How many answers the phase still waits for; 0: it is over."""
        with self._parts.db.read() as session:
            pending, answered, usable = session.execute(self._state).one()
        self._parts.on_wait(answered, sent)
        aim = sent
        if self._phase.target is not None:
            # More were asked than are needed: an error is no answer.
            aim, answered = min(self._phase.target, sent), usable
        if not pending or answered >= aim:
            return 0
        waited_s = (self._parts.clock() - sent_at).total_seconds()
        needed = quorum_of(self._phase.quorum, aim)
        if waited_s >= self._phase.deadline_s and answered >= needed:
            return 0
        if waited_s >= GIVE_UP_FACTOR * self._phase.deadline_s:
            raise Conflict(
                "quorum_not_reached",
                f"round {self._phase.round}: {answered} of {sent} devices answered in {waited_s:.0f} s; {needed} needed",
            )
        return aim - answered

    def _task(self, message: Message, now: datetime) -> Task:
        node_id = message.metadata.dst_node_id
        encoded = flower.encode(message.content)
        return Task(
            id=self._phase.task_id(node_id),
            run_id=self._phase.run_id,
            round=self._phase.round,
            attempt=self._phase.attempt,
            kind=self._phase.kind,
            device_id=self._phase.nodes[node_id],
            recipe=self._phase.recipe,
            records=encoded.records,
            blobs=[asdict(self._store(name, record)) for name, record in encoded.arrays.items()],
            message_type=message.metadata.message_type,
            group_id=message.metadata.group_id or str(self._phase.round),
            node_id=node_id,
            max_reply_bytes=self._phase.max_reply_bytes,
            deadline=now + timedelta(seconds=GIVE_UP_FACTOR * self._phase.deadline_s),
            closed=False,
            created_at=now,
        )

    def _store(self, name: str, record: ArrayRecord) -> BlobRef:
        """Write a record once: all devices get the same one."""
        if (known := self._written.get(id(record))) is None:
            place = flower.origin(record)
            if place is not None and self._parts.blobs.exists(place.name):
                known = BlobRef(record=name, digest=place.name, size=self._parts.blobs.size(place.name))
            else:
                blob = self._parts.blobs.put(tensors.encode(flower.arrays_of(record)))
                known = BlobRef(record=name, digest=blob.digest, size=blob.size)
            self._written[id(record)] = known
        return known

    def _mine(self) -> tuple[ColumnElement[bool], ...]:
        return (
            Task.run_id == self._phase.run_id,
            Task.round == self._phase.round,
            Task.attempt == self._phase.attempt,
            Task.kind == self._phase.kind,
        )

    def _replies(self, session: Session) -> list[Message]:
        rows = session.execute(
            select(Update, Task)
            .join(Task, Task.id == Update.task_id)
            .where(*self._mine())
            .where(Update.verdict.is_distinct_from(UpdateVerdict.LATE))
            .order_by(Task.node_id)
        )
        return [self._reply(update, task) for update, task in rows]

    def _reply(self, update: Update, task: Task) -> Message:
        address = Address(
            message_id=task.id, node_id=task.node_id, group_id=task.group_id, message_type=task.message_type
        )
        if update.code:
            return flower.reply(flower.failure(flower.DEVICE_FAILED, update.code, update.reason), address)
        try:
            return flower.reply(self._content(update), address)
        except FoglineError as error:
            return flower.reply(flower.failure(flower.UNREADABLE_REPLY, error.code, error.message), address)

    def _content(self, update: Update) -> RecordDict:
        """What the device sent; raises Corrupt or NotFound for anything that is not a reply."""
        try:
            names = [name for name, record in update.records.items() if record["kind"] == "arrays"]
        except (KeyError, TypeError) as error:
            raise Corrupt("bad_records", f"the records cannot be read: {error!r}") from error
        if len(names) > 1:
            raise Corrupt("bad_records", "a reply has at most one record of arrays")
        if names and not update.digest:
            raise Corrupt("bad_tensors", "the reply speaks of arrays but has no bytes")
        self._read.update(update.digest for _ in names)
        return flower.decode(update.records, {name: self._parts.blobs.path(update.digest) for name in names})
