"""Processes that answer for virtual devices: as many as there are cores, one torch thread each.

An answer depends on its task alone, so it is the same whichever process gives it and however many there are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fogline_recipes import device as answers
from fogline_server.children import die_with
from fogline_server.simulation.choices import chance
from fogline_server.simulation.population import Population
from fogline_server.simulation.private import secret_of
from fogline_server.simulation.spec import SimulationSpec
from fogline_shared import flower, tensors
from fogline_shared.errors import FoglineError, Unavailable
from fogline_shared.flower import ConfigRecord, MetricRecord, RecordDict
from fogline_shared.privacy.local import MARK, UNTOLD, Local
from fogline_shared.recipe import Recipe, load_recipe

_TASKS_A_HANDFUL = 8


@dataclass(frozen=True, kw_only=True)
class Task:
    """One device's part of one exchange. ``blobs``: array records on disk by name; ``reply``: where its own may go."""

    device: int
    round: int
    kind: str
    records: Mapping[str, Any]
    blobs: Mapping[str, Path]
    reply: Path


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Records and array blobs, or the name and message of what went wrong on the device."""

    device: int
    records: Mapping[str, Any]
    blobs: Mapping[str, Path]
    error: tuple[str, str] | None = None


class Workers:
    """A pool that lasts as long as its ``with`` block; one process is the caller's own."""

    def __init__(self, recipe: Recipe, spec: SimulationSpec, processes: int) -> None:
        self._alone = _Fleet(recipe, spec) if processes == 1 else None
        self._processes = processes
        self._pool = None
        if processes > 1:
            self._pool = ProcessPoolExecutor(
                processes,
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(os.getpid(), recipe.name, spec),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def answer(self, tasks: Sequence[Task]) -> Iterator[Answer]:
        """An answer each, in order. Raises Unavailable ``simulation_process_died``."""
        if self._alone is not None:
            yield from map(self._alone.answer, tasks)
            return
        assert self._pool is not None, "more than one process is a pool"
        handful = max(1, min(_TASKS_A_HANDFUL, len(tasks) // (2 * self._processes)))
        try:
            yield from self._pool.map(_answer, tasks, chunksize=handful)
        except BrokenProcessPool as error:
            message = "a process of the simulation died: was it killed, or out of memory? Try fewer --processes"
            raise Unavailable("simulation_process_died", message) from error


class _Fleet:
    """What one process answers with."""

    def __init__(self, recipe: Recipe, spec: SimulationSpec) -> None:
        import torch

        torch.set_num_threads(1)  # as devices train; how threads share a sum would show in it
        self._recipe, self._seed = recipe, spec.run.seed
        self._population = Population(recipe, spec)

    def answer(self, task: Task) -> Answer:
        try:
            content = self._content(task)
        except FoglineError as error:
            return Answer(device=task.device, records={}, blobs={}, error=(error.code, error.message))
        except Exception as error:  # a recipe is somebody else's code
            return Answer(device=task.device, records={}, blobs={}, error=(type(error).__name__, str(error)))
        encoded = flower.encode(content)
        blobs = {}
        for name, record in encoded.arrays.items():
            blobs[name] = task.reply
            write(task.reply, tensors.encode(flower.arrays_of(record)))
        return Answer(device=task.device, records=encoded.records, blobs=blobs)

    def _content(self, task: Task) -> RecordDict:
        held = self._population.held(task.device)
        if task.kind == "query":
            return answers.query(self._recipe, held)
        asked = flower.decode(task.records, task.blobs)
        if task.kind == "evaluate":
            return answers.evaluate(self._recipe, held, asked)
        attack = self._population.attack(task.device)
        if attack is None:
            return self._trained(task, held, asked)
        if not attack.trains:
            metrics = MetricRecord({"num-examples": len(held.data), "loss": 0.0})
            return RecordDict({"arrays": asked.array_records["arrays"], "metrics": metrics})
        answer = self._trained(task, held, asked)
        sent, trained = (flower.arrays_of(content.array_records["arrays"]) for content in (asked, answer))
        rng = chance(self._seed, "attack", task.device, task.round)
        answer["arrays"] = flower.to_record(attack.update(sent, trained, rng))
        return answer

    def _trained(self, task: Task, held: answers.Held, asked: RecordDict) -> RecordDict:
        """The honest answer, made private as the task asks."""
        reply = answers.train(self._recipe, held, asked).reply()
        local = Local.asked(answers.config_of(asked))
        if local is None:
            return reply
        trained, sent = (flower.arrays_of(content.array_records["arrays"]) for content in (reply, asked))
        protected = local.protect(trained, sent, secret_of(self._seed, task.device))
        arrays, metrics = flower.to_record(protected.arrays), MetricRecord(dict(UNTOLD))
        return RecordDict({"arrays": arrays, "metrics": metrics, MARK: ConfigRecord(dict(local.config()))})


def epochs_of(config: object) -> float:
    """How often a device goes over its data for this message: once where nothing is trained."""
    return float(config.get("epochs", 1)) if isinstance(config, ConfigRecord) else 1.0  # type: ignore[arg-type]


def write(path: Path, buffers: Iterable[bytes | memoryview]) -> None:
    """One blob."""
    with path.open("wb") as file:
        file.writelines(buffers)


_own: list[_Fleet] = []


def _start(parent: int, recipe: str, spec: SimulationSpec) -> None:
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends the pool
    _own.append(_Fleet(load_recipe(recipe), spec))


def _answer(task: Task) -> Answer:
    return _own[0].answer(task)
