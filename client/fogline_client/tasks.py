"""Answers the coordinator's tasks, one at a time: fetch what a task reads, let a child train or measure, keep the reply, send it.

An agent killed meanwhile is simply offered the task again; a reply that exists is sent again until it is acknowledged, and
the coordinator counts it once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from fogline_client import durable
from fogline_client.attributes import Facts
from fogline_client.outbox import Outbox
from fogline_shared.eligibility import Eligibility
from fogline_shared.errors import Conflict, ErrorKind, Exhausted, FoglineError, InvalidInput
from fogline_shared.measurement import MEASURE
from fogline_shared.privacy.local import MARK
from fogline_shared.protocol import TaskOffer, TaskReply

log = structlog.get_logger()


class Host(Protocol):
    """What trains (``fogline_client.training.host.TrainingHost``)."""

    async def run(self, offer: TaskOffer, blobs: Mapping[str, Path]) -> tuple[Path | None, TaskReply]:
        """Work on a task; ``blobs`` by record name. Returns where the reply's arrays lie, and its header."""

    async def close(self) -> None:
        """End the training child, if there is one."""


@dataclass(frozen=True, kw_only=True)
class TaskParts:
    """What the tasks work on. ``recipe``: the one this device is configured for; empty: it does not train."""

    recipe: str
    facts: Facts
    host: Host | None
    outbox: Outbox
    blobs: Path
    fetch: Callable[[str, int, Path], Awaitable[None]]
    upload: Callable[[TaskReply, Path | None], Awaitable[bool]]
    # Answers tasks of the kind ``measure``; raises FoglineError why not.
    measure: Callable[[TaskOffer], Awaitable[TaskReply]]
    waits: Callable[[], Iterator[float]]
    clock: Callable[[], float] = time.time
    # A reply that the coordinator has not taken by then is flushed to disk.
    flush_after_s: float = 1.0


class Tasks:
    """The queue of tasks and the loop that sends replies."""

    def __init__(self, parts: TaskParts) -> None:
        self._p = parts
        self._queue: asyncio.Queue[TaskOffer] = asyncio.Queue()
        self._unsent = {reply.task_id: reply for reply in parts.outbox.replies()}
        self._replies = asyncio.Event()
        # Replies to be flushed, and when.
        self._unflushed: asyncio.Queue[tuple[TaskReply, float]] = asyncio.Queue()
        # Which round it last trained in, and when that ended.
        self._trained: tuple[tuple[str, int], float] | None = None
        self._known = set(self._unsent)
        if self._unsent:
            self._replies.set()
        self.current = ""

    def known(self) -> Sequence[str]:
        """Task ids that are queued, under way or answered here: not to be offered again."""
        return sorted(self._known)

    def offer(self, offer: TaskOffer) -> None:
        """Queue a task; one that is known is ignored."""
        if offer.task_id not in self._known:
            self._known.add(offer.task_id)
            self._queue.put_nowait(offer)

    async def run(self) -> None:
        """Work and send, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._work())
            group.create_task(self._send())
            group.create_task(self._flush())

    async def _work(self) -> None:
        while True:
            offer = await self._queue.get()
            left_s = offer.deadline - self._p.clock()
            if left_s <= 0:
                self._known.discard(offer.task_id)
                continue
            self.current = offer.task_id
            log.info("task", task=offer.task_id, kind=offer.kind, round=offer.round)
            try:
                async with asyncio.timeout(left_s):
                    blob, reply = await self._answer(offer)
                await asyncio.to_thread(self._p.outbox.keep, reply, blob)
                self._unsent[reply.task_id] = reply
                self._replies.set()
                self._unflushed.put_nowait((reply, time.monotonic() + self._p.flush_after_s))
            except TimeoutError:
                log.warning("task not done in time", task=offer.task_id)
                self._known.discard(offer.task_id)
            except (FoglineError, OSError) as error:
                # Not even the reply could be kept: the task is offered again with the next sync.
                log.warning("reply not kept", task=offer.task_id, reason=str(error))
                self._known.discard(offer.task_id)
            finally:
                self.current = ""

    async def _answer(self, offer: TaskOffer) -> tuple[Path | None, TaskReply]:
        """Work on a task. Whatever goes wrong here is the device's answer, with a code, and not an exception."""
        try:
            if offer.kind == MEASURE:
                return None, await self._p.measure(offer)
            return await self._train(offer)
        except FoglineError as error:
            log.warning("task failed", task=offer.task_id, code=error.code, reason=error.message)
            return None, _refusal(offer, error.code, error.message)
        except Exception as error:  # a fault of ours: the round must not wait for it until its deadline
            log.exception("task failed", task=offer.task_id)
            return None, _refusal(offer, "agent_failed", repr(error))

    async def _train(self, offer: TaskOffer) -> tuple[Path | None, TaskReply]:
        if self._p.host is None or offer.recipe != self._p.recipe:
            known = self._p.recipe or "none"
            raise InvalidInput("recipe_not_here", f"the task is for {offer.recipe!r}, this device trains {known!r}")
        conditions = Eligibility.parse(offer.eligibility_json)
        self._check(conditions, self._since_training_s(offer))
        blobs = {blob.record: self._p.blobs / blob.digest for blob in offer.blobs}
        here = await asyncio.to_thread(self._unpack, offer)
        for blob in offer.blobs:
            if blob.digest not in here:
                await self._fetch(blob.digest, blob.size)
        path, reply = await self._p.host.run(offer, blobs)
        if reply.size > offer.max_reply_bytes:
            raise Exhausted("reply_too_large", f"{reply.size} bytes, allowed are {offer.max_reply_bytes}")
        self._learn(offer, reply)
        # The work is done; only what it has shown can still speak against its use.
        self._check(Eligibility(min_samples=conditions.min_samples), None)
        return path, reply

    def _check(self, conditions: Eligibility, since_training_s: float | None) -> None:
        """Raise Conflict ``not_eligible`` if the device does not meet the run's conditions as it is now."""
        reasons = conditions.unmet(self._p.facts.measure(), since_training_s=since_training_s)
        if reasons:
            # The coordinator believed otherwise.
            self._p.facts.tell()
            raise Conflict("not_eligible", "this device " + "; it ".join(reason.text for reason in reasons))

    def _since_training_s(self, offer: TaskOffer) -> float | None:
        """How long ago this device trained in another round than the offer's."""
        if offer.kind != "train" or self._trained is None or self._trained[0] == (offer.run_id, offer.round):
            return None
        return self._p.clock() - self._trained[1]

    def _learn(self, offer: TaskOffer, reply: TaskReply) -> None:
        """Note what an answer tells of this device."""
        if reply.error_code:
            return
        if offer.kind == "train":
            self._trained = (offer.run_id, offer.round), self._p.clock()
        samples = _samples(reply)
        if samples is not None and samples != self._p.facts.samples:
            self._p.facts.samples = samples
            self._p.facts.look()

    async def _fetch(self, digest: str, size: int) -> None:
        for wait_s in self._p.waits():
            try:
                await self._p.fetch(digest, size, self._p.blobs / digest)
                return
            except FoglineError as error:
                if error.kind is not ErrorKind.UNAVAILABLE:
                    raise
                await asyncio.sleep(wait_s)

    def _unpack(self, offer: TaskOffer) -> set[str]:
        """Make room, and write the blobs that came with the offer; returns which those are."""
        self._prune({blob.digest for blob in offer.blobs})
        # What is not what it is called will be fetched.
        good = {name: data for name, data in offer.contents.items() if hashlib.sha256(data).hexdigest() == name}
        for digest, data in good.items():
            durable.write(self._p.blobs / digest, data, flush=False)
        return set(good)

    def _prune(self, needed: set[str]) -> None:
        """Keep what this task reads (the teacher serves many rounds), also half downloaded; the rest is past rounds'."""
        self._p.blobs.mkdir(parents=True, exist_ok=True)
        for path in self._p.blobs.iterdir():
            if path.name.removesuffix(".part") not in needed:
                path.unlink(missing_ok=True)

    async def _send(self) -> None:
        waits = self._p.waits()
        while True:
            await self._replies.wait()
            self._replies.clear()
            for reply in list(self._unsent.values()):
                try:
                    await self._p.upload(reply, self._p.outbox.blob(reply))
                except FoglineError as error:
                    if error.kind in (ErrorKind.UNAVAILABLE, ErrorKind.EXHAUSTED, ErrorKind.UNAUTHENTICATED):
                        self._replies.set()
                        await asyncio.sleep(next(waits))
                        break
                    log.warning("reply refused", task=reply.task_id, code=error.code, reason=error.message)
                waits = self._p.waits()
                self._p.outbox.done(reply.task_id)
                del self._unsent[reply.task_id]
                self._known.discard(reply.task_id)

    async def _flush(self) -> None:
        """Flush what is still here after a while: most replies are gone by then, and a flush may take as long as sending."""
        while True:
            reply, at = await self._unflushed.get()
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            if reply.task_id in self._unsent:
                try:
                    await asyncio.to_thread(self._p.outbox.flush, reply)
                except OSError as error:
                    log.warning("reply not flushed", task=reply.task_id, reason=str(error))


def _samples(reply: TaskReply) -> int | None:
    """How many examples the answer says the device has; a private one does not."""
    records = json.loads(reply.records_json)
    if MARK in records:
        return None
    metrics = records.get("metrics", {})
    samples = metrics.get("values", {}).get("num-examples")
    return samples if isinstance(samples, int) else None


def _refusal(offer: TaskOffer, code: str, message: str) -> TaskReply:
    return TaskReply(
        task_id=offer.task_id, digest="", size=0, records_json="{}", error_code=code, error_message=message
    )
