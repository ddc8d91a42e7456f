"""The agent process: builds the parts, runs them side by side, and keeps inference apart from everything else.

Inference needs neither the coordinator nor a writable disk. A part that fails by a fault of ours is logged and started
again; the others do not notice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import partial
from random import Random
from typing import Any

import structlog

from fogline_client import durable, identity
from fogline_client.attributes import Facts
from fogline_client.config import AgentConfig, StateDir
from fogline_client.deltas import Deltas
from fogline_client.identity import Identity
from fogline_client.inference.engines.base import DEFAULT_ENGINE, load_engine
from fogline_client.inference.predictor import Predictor
from fogline_client.journal import Journal
from fogline_client.measuring.measuring import Measuring, MeasuringParts
from fogline_client.measuring.rehearsal import Rehearsal
from fogline_client.outbox import Outbox
from fogline_client.personal import Personal, PersonalParts
from fogline_client.renewal import Renewal
from fogline_client.serving.listening import Listening
from fogline_client.slots import Slots
from fogline_client.sources.base import Source, feed, load_source
from fogline_client.sync import Sync, SyncParts
from fogline_client.systemd.notify import READY, STOPPING, Manager
from fogline_client.tasks import TaskParts, Tasks
from fogline_client.telemetry.exposition import Exposition
from fogline_client.telemetry.recorder import Recorder
from fogline_client.telemetry.spool import Spool
from fogline_client.training.host import host_of
from fogline_client.trust.check import TufTrust
from fogline_client.updater import Fetch, Updater, UpdaterParts
from fogline_client.watchdog.watchdog import Watchdog
from fogline_shared import __version__
from fogline_shared.backoff import full_jitter
from fogline_shared.errors import FoglineError
from fogline_shared.longevity import settle
from fogline_shared.protocol import INLINE_BYTES, DesiredState, Hello, Report, Scalar, TaskOffer
from fogline_shared.states import AssignmentState

log = structlog.get_logger()

# How often status.json is compared with the truth, seconds.
_STATUS_EVERY_S = 1.0
# How often the device looks whether what it told of itself is still so.
_LOOK_EVERY_S = 30.0
# Of memory that transfers gave back. Little: a device may have little.
_KEEP_BYTES = 8 << 20


class Agent:
    """One device. Built from its folder; everything is closed when :meth:`run` returns."""

    def __init__(self, state: StateDir, config: AgentConfig) -> None:
        self._state = state
        self._config = config
        self._identity = identity.load(state.identity)
        self._boot_id = uuid.uuid4().hex
        self._rng = Random()  # noqa: S311 - jitter
        now = time.time()
        self._spool = Spool(state.spool, now=now)
        self._recorder = Recorder(now=now)
        engine = load_engine(config.engine or DEFAULT_ENGINE, config.engine_options)
        self._predictor = Predictor(engine=engine, observe=self._recorder.observe)
        self._sync = Sync(
            SyncParts(
                identity=lambda: self._identity,
                hello=self._hello,
                facts=lambda: self._facts.told,
                spool=self._spool,
                on_desired=self._desired,
                on_task=self._offered,
                rng=self._rng,
            )
        )
        self._renewal = Renewal(
            path=state.identity,
            current=lambda: self._identity,
            renewed=self._renewed,
            online=self._sync.online,
            rng=self._rng,
        )
        self._facts = Facts(config, changed=self._sync.wake)
        slots = Slots(state.slots)
        fetch = Deltas(slots, ask=self._sync.deltas, fetch=self._sync.fetch).fetch
        trust = TufTrust(state.trust, self._sync.metadata, self._sync.online.wait)
        self._updater = self._make_updater(slots, fetch, trust)
        self._personal = self._make_personal(slots)
        self._host = host_of(state, config)
        self._tasks = self._make_tasks(self._make_measuring(slots, fetch, trust))

    def _make_updater(self, slots: Slots, fetch: Fetch, trust: TufTrust) -> Updater:
        state, config = self._state, self._config
        return Updater(
            UpdaterParts(
                slots=slots,
                journal=Journal(state.journal),
                runtime=self._predictor,
                fetch=fetch,
                trust=trust,
                tell=self._tell,
                watchdog=Watchdog(self._predictor, config.watchdog),
                rehearse=Rehearsal(engine=config.engine, options=config.engine_options),
                incoming=state.incoming,
                waits=self._waits,
            )
        )

    def _make_personal(self, slots: Slots) -> Personal:
        state, config = self._state, self._config
        return Personal(
            PersonalParts(
                folder=state.personal,
                recipe=config.recipe,
                options=config.recipe_options,
                slots=slots,
                predictor=self._predictor,
                settled=self._settled,
                health=self._recorder.health,
                tell=self._tell_personal,
                after_s=config.personalise_after_s,
            )
        )

    def _make_measuring(self, slots: Slots, fetch: Fetch, trust: TufTrust) -> Measuring:
        state, config = self._state, self._config
        return Measuring(
            MeasuringParts(
                folder=state.measuring,
                slots=slots,
                fetch=fetch,
                trust=trust,
                facts=self._facts.measure,
                settled=self._settled,
                waits=self._waits,
                engine=config.engine,
                engine_options=config.engine_options,
            )
        )

    def _make_tasks(self, measuring: Measuring) -> Tasks:
        state, config = self._state, self._config
        return Tasks(
            TaskParts(
                recipe=config.recipe,
                facts=self._facts,
                host=self._host,
                outbox=Outbox(state.outbox),
                blobs=state.training / "blobs",
                # Parameters serve one round, and their digest is checked again before they do.
                fetch=partial(self._sync.fetch, flush=False),
                upload=self._sync.upload,
                measure=measuring.answer,
                waits=self._waits,
            )
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve and sync until ``stop`` is set.

        Raises Conflict ``port_in_use`` and InvalidInput for a wrong source before anything starts.
        """
        source = load_source(self._config.source, self._config.source_options) if self._config.source else None
        listening = Listening.of(self._config, self._state)
        self._updater.resume()
        settle(keep_bytes=_KEEP_BYTES)
        loop = asyncio.get_running_loop()
        self._spool.on_put = partial(_wake, loop, self._sync)
        parts: dict[str, Callable[[], Awaitable[None]]] = {
            "sync": self._sync.run,
            "updater": self._updater.run,
            "tasks": self._tasks.run,
            "telemetry": self._report_telemetry,
            "renewal": self._renewal.run,
            "facts": self._keep_facts,
            "status": lambda: self._keep_status(listening),
        }
        if self._config.personalise:
            parts["personal"] = self._personal.run
        manager = Manager.of(os.environ)
        parts["watchdog"] = manager.watch
        running = [asyncio.create_task(_survive(name, part), name=name) for name, part in parts.items()]
        if listening:
            metrics = Exposition(self._recorder, self._spool, self._predictor)
            serving = listening.serve(self._predictor, self._config.serving, metrics.text)
            running.append(asyncio.create_task(serving, name="serving"))
        feeding = _Feeding(source, self._predictor)
        manager.tell(READY)
        try:
            await stop.wait()
        finally:
            manager.tell(STOPPING)
            await asyncio.to_thread(feeding.stop)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await asyncio.to_thread(self._updater.stop)
            await self._close()

    async def _close(self) -> None:
        self._spool.on_put = lambda: None
        self._cut_telemetry()
        if self._host is not None:
            await self._host.close()
        self._spool.close()
        with contextlib.suppress(OSError):  # a read-only disk
            self._state.status.unlink(missing_ok=True)

    def _desired(self, desired: DesiredState) -> None:
        self._updater.want(desired)

    def _offered(self, offer: TaskOffer) -> None:
        self._tasks.offer(offer)

    def _hello(self) -> Hello:
        return Hello(
            boot_id=self._boot_id,
            agent_version=__version__,
            recipes=(self._config.recipe,) if self._config.recipe else (),
            running_tasks=self._tasks.known(),
            active_digest=self._personal.released_digest(),
            generation=self._updater.journal.ledger.settled,
            attributes=self._facts.told,
            inline_bytes=INLINE_BYTES,
        )

    def _tell(self, desired: DesiredState, state: AssignmentState, code: str, message: str) -> None:
        self._spool.put(
            Report(
                assignment_id=desired.assignment_id,
                attempt=desired.attempt,
                seq=0,
                boot_id=self._boot_id,
                state=state,
                generation=desired.generation,
                code=code,
                message=message,
            )
        )

    def _tell_personal(self, facts: Mapping[str, Scalar]) -> None:
        self._facts.personal = facts
        self._facts.look()

    def _settled(self) -> bool:
        """Whether no update is under way."""
        return self._updater.journal.ledger.attempt is None

    def _waits(self) -> Iterator[float]:
        return full_jitter(self._rng, base_s=0.5, cap_s=30.0)

    async def _report_telemetry(self) -> None:
        while True:
            await asyncio.sleep(self._sync.pace.telemetry_every_s)
            await asyncio.to_thread(self._cut_telemetry)

    def _cut_telemetry(self) -> None:
        for window in self._recorder.cut(now=time.time(), boot_id=self._boot_id):
            self._spool.put(window)

    async def _keep_facts(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            self._facts.look()

    def _renewed(self, issued: Identity) -> None:
        self._identity = issued
        self._sync.reconnect()

    async def _keep_status(self, listening: Listening) -> None:
        """Keep ``status.json`` true, for ``fogline-agent status`` and for whoever waits for the port."""
        written: dict[str, Any] = {}
        while True:
            attempt, error = self._updater.journal.ledger.attempt, self._sync.last_error
            status = {
                "pid": os.getpid(),
                "boot_id": self._boot_id,
                "device_id": self._identity.device_id,
                "online": self._sync.online.is_set(),
                "last_error": "" if error is None or self._sync.online.is_set() else str(error),
                "active_digest": self._personal.released_digest(),
                "personal": self._personal.facts() if self._config.personalise else {},
                "generation": self._updater.journal.ledger.settled,
                "update": attempt.step if attempt else "",
                "task": self._tasks.current,
                **listening.places(),
            }
            if status != written:
                with contextlib.suppress(FoglineError):  # a full disk: the next look tries again
                    await asyncio.to_thread(durable.write_json, self._state.status, status)
                    written = status
            await asyncio.sleep(_STATUS_EVERY_S)


class _Feeding:
    """The thread that takes a source's examples to the predictor."""

    def __init__(self, source: Source | None, predictor: Predictor) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if source is not None:
            self._thread = threading.Thread(target=self._run, args=(source, predictor), name="source", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def _run(self, source: Source, predictor: Predictor) -> None:
        try:
            fed = feed(source, predictor, self._stop)
            log.info("source ended", answered=fed.answered, failed=fed.failed, late=fed.late)
        except FoglineError as error:
            log.error("source failed", code=error.code, reason=error.message)  # noqa: TRY400 - it is no fault of ours


def _wake(loop: asyncio.AbstractEventLoop, sync: Sync) -> None:
    loop.call_soon_threadsafe(sync.wake)


async def _survive(name: str, part: Callable[[], Awaitable[None]]) -> None:
    """Run a part for ever: its failure is logged, and after a moment it starts again."""
    while True:
        try:
            await part()
        except Exception:  # a fault in one part must not stop inference
            log.exception("part failed", part=name)
        await asyncio.sleep(1.0)
