"""Moves the device to its desired state: download, verify, stage, activate, probation, commit or revert.

``decisions`` says what to do, this module does it. Each step is journaled before it is taken and may be taken again after a
power cut. Nothing here can stop the model that serves: a candidate replaces it only after it was downloaded, hashed,
loaded and has given the answers it is known to give.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import structlog

from fogline_client import decisions, durable
from fogline_client.decisions import Move
from fogline_client.journal import Attempt, Journal, Step
from fogline_client.slots import NAMES, Pointer, Slots
from fogline_client.telemetry.recorder import Health
from fogline_client.trust.check import Trust
from fogline_shared.errors import Corrupt, FoglineError
from fogline_shared.protocol import DesiredState
from fogline_shared.states import AssignmentState

log = structlog.get_logger()


class Runtime(Protocol):
    """What serves predictions (``fogline_client.inference.predictor.Predictor``)."""

    def load(self, path: Path) -> Any:
        """Open and check a model without serving it; raises Corrupt."""

    def swap(self, model: Any | None) -> Any | None:
        """Serve it from the next request on; None: serve nothing."""


Fetch = Callable[[str, int, Path], Awaitable[None]]
"""``(digest, size, target)``: bring a verified blob to ``target``; may resume, may wait for the network."""

Tell = Callable[[DesiredState, AssignmentState, str, str], None]
"""``(desired, state, code, message)``: report durably; callable from any thread."""


class _NewerDesired(Exception):
    """A newer generation arrived while waiting."""


@dataclass(frozen=True, kw_only=True)
class UpdaterParts:
    """What the updater works on."""

    slots: Slots
    journal: Journal
    runtime: Runtime
    fetch: Fetch
    trust: Trust
    tell: Tell
    health: Callable[[str], Health]
    incoming: Path
    waits: Callable[[], Iterator[float]]
    probation_poll_s: float = 0.1


class Updater:
    """One attempt at a time; the newest desired state wins."""

    def __init__(self, parts: UpdaterParts) -> None:
        self._p = parts
        self._newest: DesiredState | None = None
        self._news = asyncio.Event()
        # Loaded models by digest, so that going back needs no disk; only the active one and the one before.
        self._models: dict[str, Any] = {}

    @property
    def journal(self) -> Journal:
        """For status and hello."""
        return self._p.journal

    def active_digest(self) -> str:
        """What the pointer names, or an empty string."""
        pointer = self._pointer()
        return pointer.digest if pointer else ""

    def want(self, desired: DesiredState) -> None:
        """Take note of what the coordinator desires; repeats and older generations are harmless."""
        newest = self._newest.generation if self._newest else 0
        if desired.generation > newest and decisions.is_news(self._p.journal.ledger, desired):
            self._newest = desired
            self._news.set()

    def resume(self) -> None:
        """First act of a process: count the start, end a crash loop, and serve the active model. Blocking."""
        attempt = self._p.journal.ledger.attempt
        if attempt is not None and attempt.step is not Step.DOWNLOADING:
            attempt = replace(attempt, starts=attempt.starts + 1)
            self._journal(attempt)
            if decisions.in_crash_loop(attempt):
                self._give_up(attempt, "crash_loop", f"the process started {attempt.starts} times without finishing")
        try:
            pointer = self._p.slots.active()
            if pointer is not None:
                self._serve(pointer)
        except (FoglineError, OSError) as error:
            code, message = _described(error)
            log.warning("active model does not load", code=code, reason=message)
            attempt = self._p.journal.ledger.attempt
            if attempt is not None and decisions.started(attempt):
                self._give_up(attempt, code, message)
            else:
                self._fall_back()

    async def run(self) -> None:
        """Carry on where the journal stands, then follow the desired state for ever."""
        if self._p.journal.ledger.attempt is not None:
            await self._carry_on(self._p.journal.ledger.attempt)
        while True:
            await self._news.wait()
            self._news.clear()
            if self._newest is not None:
                await self._reach(self._newest)

    async def _reach(self, desired: DesiredState) -> None:
        slots, journal, active = self._p.slots, self._p.journal, self._pointer()
        spare_holds_it = await asyncio.to_thread(slots.holds, slots.spare(), desired.artifact_digest)
        move = decisions.choose(journal.ledger, desired, active=active, spare_holds_it=spare_holds_it)
        log.info("desired state", generation=desired.generation, digest=desired.artifact_digest, move=move)
        match move:
            case Move.IGNORE:
                return
            case Move.CLEAR:
                self._p.runtime.swap(None)
                slots.deactivate()
                self._finish(desired, AssignmentState.SUCCEEDED)
            case Move.SETTLE:
                self._finish(desired, AssignmentState.SUCCEEDED)
            case Move.REUSE:
                await self._carry_on(Attempt(desired=desired, step=Step.VERIFYING, previous=active))
            case Move.DOWNLOAD:
                await self._carry_on(Attempt(desired=desired, step=Step.DOWNLOADING, previous=active))

    async def _carry_on(self, attempt: Attempt) -> None:
        """Take the steps from ``attempt.step`` on, each journaled first, until the attempt ends one way or another."""
        step: Step | None = attempt.step
        tries, waits = 0, self._p.waits()
        try:
            while step is not None:
                attempt = attempt.at(step)
                try:
                    step, tries = await self._take(attempt), 0
                except FoglineError as error:
                    tries += 1
                    if decisions.started(attempt) or not decisions.may_retry(error, tries):
                        raise
                    log.warning("step failed, will retry", step=step, code=error.code, reason=error.message)
                    self._tell(attempt, AssignmentState.DOWNLOADING, error.code, error.message)
                    await self._unless_newer(asyncio.sleep(next(waits)))
        except _NewerDesired:
            await asyncio.to_thread(self._withdraw, attempt)
        except (FoglineError, OSError) as error:
            await asyncio.to_thread(self._give_up, attempt, *_described(error))

    async def _take(self, attempt: Attempt) -> Step | None:
        """Take one step and return the next; None: the attempt is over."""
        await asyncio.to_thread(self._p.journal.begin, attempt)
        match attempt.step:
            case Step.DOWNLOADING:
                self._tell(attempt, AssignmentState.DOWNLOADING)
                await self._unless_newer(self._p.trust.check(attempt.desired))
                digest, size = attempt.desired.artifact_digest, attempt.desired.artifact_size
                await self._unless_newer(self._p.fetch(digest, size, self._p.incoming / digest))
                return Step.VERIFYING
            case Step.VERIFYING:
                await self._unless_newer(self._p.trust.check(attempt.desired))
                return await asyncio.to_thread(self._verify, attempt)
            case Step.STAGED:
                self._tell(attempt, AssignmentState.STAGED)
                return Step.ACTIVATING
            case Step.ACTIVATING:
                self._tell(attempt, AssignmentState.ACTIVATING)
                await asyncio.to_thread(self._activate, attempt)
                return Step.PROBATION
            case Step.PROBATION:
                self._tell(attempt, AssignmentState.PROBATION)
                await self._probation(attempt)
                self._finish(attempt.desired, AssignmentState.SUCCEEDED)
                return None

    def _verify(self, attempt: Attempt) -> Step:
        """Load the candidate, from where a power cut may have left it, and stage it."""
        slots, digest = self._p.slots, attempt.desired.artifact_digest
        downloaded = self._p.incoming / digest
        spare = slots.spare()
        staged = slots.holds(spare, digest)
        if not staged and not downloaded.exists():
            return Step.DOWNLOADING
        try:
            self._models[digest] = self._p.runtime.load(slots.path(spare) if staged else downloaded)
        except Corrupt:
            downloaded.unlink(missing_ok=True)
            raise
        if not staged:
            slots.stage(downloaded, digest)
        return Step.STAGED

    def _activate(self, attempt: Attempt) -> None:
        slots, digest = self._p.slots, attempt.desired.artifact_digest
        pointer = self._pointer()
        if pointer is None or pointer.digest != digest:
            pointer = Pointer(slot=slots.spare(), digest=digest)
            slots.activate(pointer)
        self._serve(pointer)

    async def _probation(self, attempt: Attempt) -> None:
        digest = attempt.desired.artifact_digest
        before = self._p.health(digest)
        loop = asyncio.get_running_loop()
        until = loop.time() + attempt.desired.probation_s
        while (left := until - loop.time()) > 0:
            await self._unless_newer(asyncio.sleep(min(left, self._p.probation_poll_s)))
            if reason := decisions.unfit(before, self._p.health(digest)):
                raise Corrupt("probation_failed", reason)

    def _give_up(self, attempt: Attempt, code: str, message: str) -> None:
        """End the attempt: back to the model before, when the candidate may have served."""
        log.warning("candidate refused", generation=attempt.desired.generation, code=code, reason=message)
        back = decisions.started(attempt)
        if back:
            self._go_back(attempt)
        state = AssignmentState.REVERTED if back else AssignmentState.REJECTED
        self._finish(attempt.desired, state, code, message)

    def _withdraw(self, attempt: Attempt) -> None:
        """Leave the attempt for a newer one. An unproven candidate steps down, unless nothing else could serve."""
        if decisions.started(attempt) and attempt.previous is not None:
            self._go_back(attempt)
        self._settle(attempt.desired.generation)

    def _go_back(self, attempt: Attempt) -> None:
        """Serve what served before. In memory first: a full disk must not keep a bad model serving."""
        previous = attempt.previous
        self._models.pop(attempt.desired.artifact_digest, None)
        try:
            if previous is None:
                self._p.runtime.swap(None)
                self._p.slots.deactivate()
                self._p.slots.empty_spare()
                return
            self._serve(previous)
            if self._pointer() != previous:
                self._p.slots.activate(previous)
            self._p.slots.empty_spare()
        except (FoglineError, OSError) as error:
            code, message = _described(error)
            log.warning("going back was not complete", code=code, reason=message)
            if code in {"slot_damaged", "bad_pointer"}:
                self._fall_back()

    def _fall_back(self) -> None:
        """What should be active is damaged on disk: serve a slot that is sound, and ask for the desired state anew."""
        slots = self._p.slots
        slots.deactivate()
        self._p.runtime.swap(None)
        with contextlib.suppress(FoglineError):
            self._p.journal.forget()
        for slot in NAMES:
            with contextlib.suppress(FoglineError, OSError):
                pointer = Pointer(slot=slot, digest=durable.digest_of(slots.path(slot)))
                self._serve(pointer)
                slots.activate(pointer)
                return

    def _serve(self, pointer: Pointer) -> None:
        model = self._models.get(pointer.digest)
        if model is None:
            if not self._p.slots.holds(pointer.slot, pointer.digest):
                raise Corrupt("slot_damaged", f"slot {pointer.slot} does not hold {pointer.digest}")
            model = self._p.runtime.load(self._p.slots.path(pointer.slot))
        self._p.runtime.swap(model)
        self._models[pointer.digest] = model

    def _finish(self, desired: DesiredState, state: AssignmentState, code: str = "", message: str = "") -> None:
        """Report first, settle second: a power cut between them repeats the report, never loses it."""
        self._p.tell(desired, state, code, message)
        self._settle(desired.generation)
        # Nothing there is needed any more: it was staged, refused, or overtaken.
        shutil.rmtree(self._p.incoming, ignore_errors=True)
        active = self.active_digest()
        self._models = {digest: model for digest, model in self._models.items() if digest == active}

    def _settle(self, generation: int) -> None:
        try:
            self._p.journal.settle(generation)
        except FoglineError as error:
            log.warning("journal not written", code=error.code, reason=error.message)

    def _journal(self, attempt: Attempt) -> None:
        try:
            self._p.journal.begin(attempt)
        except FoglineError as error:
            log.warning("journal not written", code=error.code, reason=error.message)

    def _tell(self, attempt: Attempt, state: AssignmentState, code: str = "", message: str = "") -> None:
        self._p.tell(attempt.desired, state, code, message)

    def _pointer(self) -> Pointer | None:
        try:
            return self._p.slots.active()
        except Corrupt as error:
            log.warning("slot pointer unreadable", code=error.code, reason=error.message)
            return None

    async def _unless_newer(self, work: Awaitable[None]) -> None:
        """Await ``work``, but cancel it and raise when a newer desired state arrives."""
        task, news = asyncio.ensure_future(work), asyncio.ensure_future(self._news.wait())
        try:
            await asyncio.wait({task, news}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
                return
            raise _NewerDesired
        finally:
            for pending in (task, news):
                pending.cancel()
            await asyncio.gather(task, news, return_exceptions=True)


def _described(error: FoglineError | OSError) -> tuple[str, str]:
    if isinstance(error, FoglineError):
        return error.code, error.message
    return "io_failed", str(error)
