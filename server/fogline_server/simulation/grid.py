"""Flower's grid over virtual devices: only those that answer in time, in virtual time, are computed at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from fogline_server.simulation.attacks import Sent
from fogline_server.simulation.clock import Closing, close
from fogline_server.simulation.pacer import Attempt
from fogline_server.simulation.population import Population
from fogline_server.simulation.spec import SimulationSpec
from fogline_server.simulation.workers import Answer, Task, Workers, epochs_of, write
from fogline_server.training.cohort_grid import CohortGrid
from fogline_server.training.rounds import ARRAYS
from fogline_shared import flower, tensors
from fogline_shared.errors import Conflict
from fogline_shared.flower import Address, ArrayRecord, Message


@dataclass(kw_only=True)
class Site:
    """What the grids of a simulation share: virtual time goes on in ``now_s``; blobs lie in ``folder``."""

    spec: SimulationSpec
    population: Population
    workers: Workers
    folder: Path
    on_answer: Callable[[], None]
    now_s: float = 0.0
    _names: Iterator[int] = field(default_factory=count)

    def place(self) -> Path:
        """Where the next blob goes."""
        return self.folder / str(next(self._names))


class VirtualGrid(CohortGrid):
    """One exchange with a cohort; ``closing`` tells how it ended. Its blobs go with :meth:`release`."""

    def __init__(self, site: Site, attempt: Attempt, kind: str, nodes: list[int]) -> None:
        super().__init__(nodes)
        self.closing: Closing | None = None
        self._site, self._attempt, self._round, self._kind = site, attempt, attempt.round, kind
        self._written: dict[int, Path] = {}
        self._blobs: list[Path] = []

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Not on its own: an exchange closes as a whole."""
        raise NotImplementedError("an exchange closes as a whole")

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Not on its own."""
        raise NotImplementedError("an exchange closes as a whole")

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Replies that came in time, by node; ``timeout`` is the run's, not the caller's.

        Raises Conflict ``quorum_not_reached``, and Unavailable ``simulation_process_died``.
        """
        del timeout
        site, run = self._site, self._site.spec.run
        sent = {message.metadata.dst_node_id: message for message in messages}
        after = {node: self._answers_after(message) for node, message in sent.items()}
        attempt = self._attempt
        self.closing = close(after, quorum=run.quorum, deadline_s=attempt.deadline_s, target=attempt.target)
        site.now_s += self.closing.seconds
        if not self.closing.reached:
            answered, seconds = len(self.closing.in_time), self.closing.seconds
            told = f"round {self._round}: {answered} of {len(sent)} devices answered in {seconds:.0f} s"
            raise Conflict("quorum_not_reached", f"{told}, fewer than the quorum {run.quorum:g}")
        tasks = [self._task(node, sent[node]) for node in sorted(self.closing.in_time)]
        replies = []
        for answer in site.workers.answer(tasks):
            replies.append(self._reply(answer, sent[answer.device]))
            site.on_answer()
        self._collude(replies, sent)
        return replies

    def release(self) -> None:
        """Nothing of this exchange will be read again."""
        for path in self._blobs:
            path.unlink(missing_ok=True)

    def _collude(self, replies: list[Message], sent: Mapping[int, Message]) -> None:
        """Attackers that answer together change their replies once they know the honest ones."""
        site, attack = self._site, self._site.spec.attack_by
        if attack is None or not attack.colludes or self._kind != "train":
            return
        usable = [reply for reply in replies if not reply.has_error()]
        bad = [reply for reply in usable if site.population.attack(reply.metadata.src_node_id) is not None]
        if not bad:
            return
        honest = (flower.arrays_of(reply.content.array_records[ARRAYS]) for reply in usable if reply not in bad)
        reference = flower.arrays_of(sent[bad[0].metadata.src_node_id].content.array_records[ARRAYS])
        agreed = flower.to_record(attack.agreed(Sent.of(reference, honest, len(bad))))
        for reply in bad:
            reply.content[ARRAYS] = agreed

    def _answers_after(self, message: Message) -> float | None:
        epochs = epochs_of(message.content.get("config"))
        node = message.metadata.dst_node_id
        return self._site.population.answers_after(
            node, self._attempt.turn, self._kind, epochs=epochs, at_s=self._site.now_s
        )

    def _task(self, node: int, message: Message) -> Task:
        encoded = flower.encode(message.content)
        return Task(
            device=node,
            round=self._round,
            kind=self._kind,
            records=encoded.records,
            blobs={name: self._store(record) for name, record in encoded.arrays.items()},
            reply=self._place(),
        )

    def _store(self, record: ArrayRecord) -> Path:
        """Write a record once: all devices get the same one."""
        if id(record) not in self._written:
            path = self._written[id(record)] = self._place()
            write(path, tensors.encode(flower.arrays_of(record)))
        return self._written[id(record)]

    def _place(self) -> Path:
        path = self._site.place()
        self._blobs.append(path)
        return path

    def _reply(self, answer: Answer, message: Message) -> Message:
        about = message.metadata
        address = Address(
            message_id=f"{self._round}-{self._kind}-{answer.device}",
            node_id=answer.device,
            group_id=about.group_id,
            message_type=about.message_type,
        )
        if answer.error is not None:
            return flower.reply(flower.failure(flower.DEVICE_FAILED, *answer.error), address)
        return flower.reply(flower.decode(answer.records, answer.blobs), address)
