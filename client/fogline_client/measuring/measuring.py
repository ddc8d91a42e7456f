"""Answers a measure task: bring the artifact, check its signature, measure it in a process of its own, tell the figures.

The slots are only read, the model that serves goes on. A task waits its turn behind a training; here it also waits for an
update to end, because both would be wrong about how fast a model is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from fogline_client import durable
from fogline_client.inference.engines.base import DEFAULT_ENGINE
from fogline_client.limits import Limits
from fogline_client.measuring.apart import said_apart
from fogline_client.measuring.child import Order
from fogline_client.measuring.results import Results, engine_text, machine
from fogline_client.slots import NAMES, Slots
from fogline_client.trust.check import Trust
from fogline_client.trust.child import from_json
from fogline_shared.eligibility import BATTERY, CHARGING, METERED
from fogline_shared.errors import Conflict, Corrupt, Exhausted, FoglineError, InvalidInput, Unavailable
from fogline_shared.measurement import ARTIFACT, Figures, Subject
from fogline_shared.protocol import BlobRef, DesiredState, Scalar, TaskOffer, TaskReply

log = structlog.get_logger()

# A battery below this, without a charger, is kept for predictions.
LEAST_BATTERY_PERCENT = 20
# Tries at what the network may bring the next time; the task is answered then, others wait behind it.
_TRIES = 4


@dataclass(frozen=True, kw_only=True)
class MeasuringLimits:
    """What one measurement may take: CPU seconds, and memory beside the engine.

    ``update_s``: seconds to wait for an update to end; ``bring_s``: for the artifact and its signature. Other tasks wait behind it.
    """

    cpu_s: float = 30.0
    memory_bytes: int = 1 << 30
    update_s: float = 60.0
    bring_s: float = 600.0


@dataclass(frozen=True, kw_only=True)
class MeasuringParts:
    """What measuring works on. ``settled``: whether no update is under way; ``facts``: what is so of the device now."""

    folder: Path
    slots: Slots
    fetch: Callable[[str, int, Path], Awaitable[None]]
    trust: Trust
    facts: Callable[[], Mapping[str, Scalar]]
    settled: Callable[[], bool]
    waits: Callable[[], Iterator[float]]
    engine: str = ""
    engine_options: Mapping[str, Scalar] = field(default_factory=dict)
    limits: MeasuringLimits = field(default_factory=MeasuringLimits)


class Measuring:
    """One measurement at a time; ``tasks`` sees to that."""

    def __init__(self, parts: MeasuringParts) -> None:
        self._p = parts
        self._results = Results(parts.folder / "results.json")
        self._work = parts.folder / "work"
        self._engine = parts.engine or DEFAULT_ENGINE
        self._engine_text = engine_text(self._engine, parts.engine_options)

    async def answer(self, offer: TaskOffer) -> TaskReply:
        """The figures as a reply without arrays.

        Raises InvalidInput ``malformed_frame``; Conflict ``battery_low``, ``network_metered``, ``update_under_way``; Exhausted
        ``disk_full``, ``measuring_out_of_memory``, ``measuring_too_long``; Unavailable ``measuring_not_begun``, ``measuring_died``,
        ``io_failed``; and what the download, the check of signatures, and the artifact itself raise.
        """
        subject, artifact = Subject.parse(offer.records_json), _artifact_of(offer)
        figures = await asyncio.to_thread(self._results.find, artifact.digest, self._engine_text)
        if figures is None:
            try:
                figures = await self._anew(subject, artifact)
            except OSError as error:
                raise Unavailable("io_failed", str(error)) from error
            finally:
                shutil.rmtree(self._work, ignore_errors=True)
            await asyncio.to_thread(self._results.keep, artifact.digest, figures)
        return TaskReply(task_id=offer.task_id, digest="", size=0, records_json=json.dumps(figures.as_json()))

    async def _anew(self, subject: Subject, artifact: BlobRef) -> Figures:
        self._check_power()
        await self._until_settled()
        path = self._work / artifact.digest
        try:
            async with asyncio.timeout(self._p.limits.bring_s):
                await self._bring(subject, artifact, path)
        except TimeoutError as error:
            message = f"the artifact and its signature were not here within {self._p.limits.bring_s:g} s"
            raise Unavailable("measuring_not_begun", message) from error
        raw = await self._measure(path, artifact.digest)
        figures = Figures.from_json({**raw, "engine": self._engine_text, "machine": machine()})
        if figures.size != artifact.size:
            raise Corrupt("size_mismatch", f"the artifact has {figures.size} bytes, {artifact.size} were announced")
        return figures

    async def _bring(self, subject: Subject, artifact: BlobRef, path: Path) -> None:
        """Check that the artifact is signed, and put it, or a second name of it, at ``path``."""
        desired = DesiredState(
            generation=0,
            artifact_digest=artifact.digest,
            artifact_size=artifact.size,
            release_id=subject.release_id,
            variant=subject.variant,
        )
        await self._patiently(lambda: self._p.trust.check(desired))
        with durable.full_disk_named(path):
            self._work.mkdir(parents=True, exist_ok=True)
            if not await asyncio.to_thread(self._borrow, artifact, path):
                self._check_network()
                await self._patiently(lambda: self._p.fetch(artifact.digest, artifact.size, path))

    def _check_power(self) -> None:
        facts = self._p.facts()
        battery = facts.get(BATTERY)
        low = isinstance(battery, int | float) and battery < LEAST_BATTERY_PERCENT
        if low and facts.get(CHARGING) is not True:
            message = f"the battery is at {battery} %; below {LEAST_BATTERY_PERCENT} % nothing is measured"
            raise Conflict("battery_low", message)

    def _check_network(self) -> None:
        if self._p.facts().get(METERED) is True:
            raise Conflict("network_metered", "the artifact is not here, and the network costs by the byte")

    async def _until_settled(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._p.limits.update_s
        while not self._p.settled():
            if loop.time() >= until:
                raise Conflict("update_under_way", "an update of the model that serves has not ended yet")
            await asyncio.sleep(0.05)

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        waits = self._p.waits()
        for attempt in range(1, _TRIES + 1):
            try:
                return await work()
            except Unavailable as error:
                if attempt == _TRIES:
                    raise
                log.info("measuring will retry", code=error.code, reason=error.message)
            await asyncio.sleep(next(waits))
        return None

    def _borrow(self, artifact: BlobRef, path: Path) -> bool:
        """Give an artifact that lies in a slot a second name: an update replaces files there, it does not write into them."""
        for slot in NAMES:
            if self._p.slots.holds(slot, artifact.digest):
                with contextlib.suppress(OSError):  # some file systems have no second names
                    os.link(self._p.slots.path(slot), path)
                    return True
        return False

    async def _measure(self, path: Path, digest: str) -> dict[str, object]:
        limits = self._p.limits
        order = Order(
            path=str(path.absolute()),
            digest=digest,
            engine=self._engine,
            options=dict(self._p.engine_options),
            # A device has little memory, and others need it.
            memory_bytes=min(limits.memory_bytes, Limits().free_memory_bytes() // 2),
            cpu_s=limits.cpu_s,
        )
        try:
            said, exit_code = await said_apart(order)
        except TimeoutError as error:
            raise _too_long(limits.cpu_s) from error
        return _understood(said, exit_code, limits.cpu_s)


def _understood(said: bytes, exit_code: int | None, cpu_s: float) -> dict[str, object]:
    """The child's figures; raises what it says instead, or why it said nothing."""
    try:
        answer = json.loads(said)
    except ValueError as error:
        if exit_code == -signal.SIGXCPU:
            raise _too_long(cpu_s) from error
        raise Unavailable("measuring_died", f"the measuring process ended with exit code {exit_code}") from error
    if "code" in answer:
        failure: FoglineError = from_json(answer)
        raise failure
    return dict(answer)


def _too_long(cpu_s: float) -> Exhausted:
    return Exhausted("measuring_too_long", f"the artifact was not measured within {cpu_s:g} s of CPU time")


def _artifact_of(offer: TaskOffer) -> BlobRef:
    found = [blob for blob in offer.blobs if blob.record == ARTIFACT]
    if len(found) != 1:
        raise InvalidInput("malformed_frame", "a measurement reads one artifact")
    return found[0]
