"""Devices that train across server steps, in virtual time: FedBuff's side of a simulation.

A device is asked with the version that is current, and is busy until it answers; a step takes the first answers to come,
whatever their version. Only answers that count are computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fogline_recipes import parameters
from fogline_server.simulation.clock import Closing
from fogline_server.simulation.grid import Site, VirtualGrid
from fogline_server.simulation.pacer import Attempt
from fogline_server.simulation.workers import Task
from fogline_server.training.asynchronous.staleness import may_step, rebase
from fogline_server.training.pacing import GIVE_UP_FACTOR
from fogline_server.training.rounds import ARRAYS
from fogline_server.training.strategies.base import Rule
from fogline_shared import flower
from fogline_shared.errors import Conflict
from fogline_shared.flower import ArrayRecord, Message

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Flight:
    """A device at work. ``ends_s``: when it answers, or is given up; ``seconds`` None: it never answers."""

    device: int
    step: int
    ends_s: float
    seconds: float | None
    message: Message
    task: Task


@dataclass(kw_only=True)
class Air:
    """Who is at work between the steps, and the blobs of the versions that they were sent."""

    buffer_size: int
    max_staleness: int
    running: Collection[str]
    flights: dict[int, Flight] = field(default_factory=dict)
    blobs: set[Path] = field(default_factory=set)

    @classmethod
    def of(cls, rule: Rule, asked: int, model: torch.nn.Module) -> Self:
        """Nobody at work. With fewer devices than the buffer holds, all of their answers fill it."""
        learned, options = parameters.read(model), rule.options
        return cls(
            buffer_size=min(options.buffer_size, asked),
            max_staleness=options.max_staleness,
            running=[name for name, _ in model.named_buffers() if name in learned],
        )

    def free(self, cohort: Sequence[int], concurrency: int) -> list[int]:
        """Who of a cohort is asked now, so that at most ``concurrency`` devices are at work."""
        idle = [device for device in cohort if device not in self.flights]
        return idle[: max(0, concurrency - len(self.flights))]

    def sweep(self) -> None:
        """Forget the versions that nobody is at work on."""
        used = {path for flight in self.flights.values() for path in flight.task.blobs.values()}
        for path in self.blobs - used:
            path.unlink(missing_ok=True)
        self.blobs &= used


class BufferedGrid(VirtualGrid):
    """One server step: asks its nodes, waits for the buffer to fill. ``staleness``: by device, of the answers it gave."""

    def __init__(self, site: Site, attempt: Attempt, nodes: list[int], arrays: ArrayRecord, air: Air) -> None:
        super().__init__(site, attempt, "train", nodes)
        self.staleness: dict[int, int] = {}
        self._air, self._present = air, flower.arrays_of(arrays)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """The first ``buffer_size`` answers that are not too stale, as updates of the present parameters.

        Raises Conflict ``quorum_not_reached`` when none comes, and Unavailable ``simulation_process_died``.
        """
        del timeout
        for message in messages:
            self._send(message)
        counted = self._land()
        if not counted:
            raise Conflict("quorum_not_reached", f"step {self._round}: no device that was at work answered")
        replies = []
        for answer in self._site.workers.answer([flight.task for flight in counted]):
            flight = next(flight for flight in counted if flight.device == answer.device)
            replies.append(self._rebased(flight, self._reply(answer, flight.message)))
            self._site.on_answer()
        return replies

    def release(self) -> None:
        """Replies go; a version stays as long as a device is at work on it."""
        self._air.blobs |= set(self._written.values())
        self._blobs = [path for path in self._blobs if path not in self._air.blobs and path not in self._flying()]
        super().release()
        self._air.sweep()

    def _flying(self) -> set[Path]:
        return {flight.task.reply for flight in self._air.flights.values()}

    def _send(self, message: Message) -> None:
        site, device = self._site, message.metadata.dst_node_id
        seconds = self._answers_after(message)
        waits_s = GIVE_UP_FACTOR * site.spec.run.round_deadline_s
        if seconds is not None and seconds > waits_s:
            seconds = None
        self._air.flights[device] = Flight(
            device=device,
            step=self._round,
            ends_s=site.now_s + (waits_s if seconds is None else seconds),
            seconds=seconds,
            message=message,
            task=self._task(device, message),
        )

    def _land(self) -> list[Flight]:
        """Let time pass until the buffer is full, or at the deadline full enough, or nobody is at work."""
        air, began_s = self._air, self._site.now_s
        counted: list[Flight] = []
        stale: list[Flight] = []
        lost: list[Flight] = []
        for flight in sorted(air.flights.values(), key=lambda flight: (flight.ends_s, flight.device)):
            if self._may_step(counted, flight, deadline_s=began_s + self._attempt.deadline_s):
                break
            del air.flights[flight.device]
            self._blobs.append(flight.task.reply)
            self._site.now_s = max(self._site.now_s, flight.ends_s)
            if flight.seconds is None:
                lost.append(flight)
            elif self._round - flight.step > air.max_staleness:
                stale.append(flight)
            else:
                counted.append(flight)
        self.staleness.update({flight.device: self._round - flight.step for flight in counted})
        wasted_s = sum(flight.seconds or 0.0 for flight in stale)
        self.closing = Closing(
            seconds=self._site.now_s - began_s,
            reached=bool(counted),
            in_time=frozenset(flight.device for flight in counted),
            late=frozenset(flight.device for flight in stale),
            lost=frozenset(flight.device for flight in lost),
            answers_s={flight.device: flight.seconds for flight in counted if flight.seconds is not None},
            device_s=wasted_s + sum(flight.seconds or 0.0 for flight in counted),
            wasted_s=wasted_s,
        )
        return counted

    def _may_step(self, counted: list[Flight], following: Flight, *, deadline_s: float) -> bool:
        """Whether the step does without what comes next; if it only does at its deadline, time goes on to that."""
        air, run = self._air, self._site.spec.run
        overdue = following.ends_s > deadline_s
        ready = may_step(
            usable=len(counted),
            pending=sum(self._round - flight.step <= air.max_staleness for flight in air.flights.values()),
            size=air.buffer_size,
            quorum=run.quorum,
            needed=run.fewest_updates,
            overdue=overdue,
        )
        if ready and len(counted) < air.buffer_size and overdue:
            self._site.now_s = max(self._site.now_s, deadline_s)
        return ready

    def _rebased(self, flight: Flight, reply: Message) -> Message:
        if flight.step == self._round:
            return reply
        sent = flower.arrays_of(flight.message.content.array_records[ARRAYS])
        return rebase(reply, sent, self._present, arrays=ARRAYS, running=self._air.running)
