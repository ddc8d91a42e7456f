"""Moves the device to its desired state: download, verify, stage, activate, probation, commit or revert.

``decisions`` says what to do, this module does it. Each step is journaled before it is taken and may be taken again after a
power cut. Nothing here can stop the model that serves: a candidate replaces it only after it was downloaded, hashed,
loaded and has given the answers it is known to give. From then on a watchdog can go back at any time (``watchdog``); what it
did in memory is made so on disk, and told, here.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ParamSpec, TypeVar

import structlog

from fogline_client import decisions
from fogline_client.active import Active, Runtime
from fogline_client.decisions import Move
from fogline_client.journal import Attempt, Journal, Step
from fogline_client.newcomer import Newcomer, Tell
from fogline_client.slots import Pointer, Slots
from fogline_client.trust.check import Trust
from fogline_client.watchdog.watchdog import Watchdog
from fogline_shared.errors import Corrupt, FoglineError
from fogline_shared.protocol import DesiredState
from fogline_shared.states import AssignmentState

log = structlog.get_logger()

P = ParamSpec("P")
T = TypeVar("T")


Fetch = Callable[[str, int, Path], Awaitable[None]]
"""``(digest, size, target)``: bring a verified blob to ``target``; may resume, may wait for the network."""

Rehearse = Callable[[Path, str], Awaitable[None]]
"""``(path, digest)``: load a candidate where it can do no harm; raises Corrupt."""


class _NewerDesired(Exception):
    """A newer generation arrived while waiting."""


class _Alarmed(Exception):
    """The watchdog went back while something was waited for."""


@dataclass(frozen=True, kw_only=True)
class UpdaterParts:
    """What the updater works on."""

    slots: Slots
    journal: Journal
    runtime: Runtime
    fetch: Fetch
    trust: Trust
    tell: Tell
    watchdog: Watchdog
    rehearse: Rehearse
    incoming: Path
    waits: Callable[[], Iterator[float]]


class Updater:
    """One attempt at a time; the newest desired state wins."""

    def __init__(self, parts: UpdaterParts) -> None:
        self._p = parts
        self._newest: DesiredState | None = None
        self._news = asyncio.Event()
        self._busy = threading.Lock()
        self._active = Active(parts.slots, parts.runtime, parts.watchdog)
        self._newcomer = Newcomer(parts.journal, self._active, parts.watchdog, parts.tell)

    @property
    def journal(self) -> Journal:
        """For status and hello."""
        return self._p.journal

    def active_digest(self) -> str:
        """What the pointer names, or an empty string."""
        pointer = self._active.pointer()
        return pointer.digest if pointer else ""

    def want(self, desired: DesiredState) -> None:
        """Take note of what the coordinator desires; repeats and older generations are harmless."""
        newest = self._newest.generation if self._newest else 0
        if desired.generation > newest and decisions.is_news(self._p.journal.ledger, desired):
            self._newest = desired
            self._news.set()

    def resume(self) -> None:
        """First act of a process: count the start, end a crash loop, and serve the active model. Blocking."""
        self._count_start()
        ledger = self._p.journal.ledger
        attempt, watch = ledger.attempt, ledger.watch
        try:
            pointer = self._p.slots.active()
            if pointer is None:
                return
            if attempt is not None and decisions.started(attempt) and pointer.digest == attempt.desired.artifact_digest:
                self._active.serve_watched(pointer, attempt.previous, compare=not attempt.known)
            elif watch is not None and not watch.over and pointer.digest == watch.desired.artifact_digest:
                self._active.serve_watched(pointer, watch.previous, compare=True)
            else:
                self._active.serve(pointer)
        except (FoglineError, OSError) as error:
            code, message = _described(error)
            log.warning("active model does not load", code=code, reason=message)
            if attempt is not None and decisions.started(attempt):
                self._give_up(attempt, code, message)
            else:
                self._fall_back()

    def stop(self) -> None:
        """Last act of a process that ends in good order: this start did not end in a crash. Blocking."""
        with self._busy:
            self._p.watchdog.end()
            self._newcomer.heed()
            attempt = self._p.journal.ledger.attempt
            if attempt is not None and attempt.starts:
                self._journal(replace(attempt, starts=0))
            self._newcomer.forgive_start()

    async def run(self) -> None:
        """Carry on where the journal stands, then follow the desired state for ever."""
        self._newcomer.attach(asyncio.get_running_loop())
        if (attempt := self._p.journal.ledger.attempt) is not None:
            if attempt.step is Step.DOWNLOADING:  # the start may have gone back since
                attempt = replace(attempt, previous=self._active.pointer())
            await self._carry_on(attempt)
        while True:
            try:
                await self._unless_newer(asyncio.sleep(await self._blocking(self._newcomer.tend)))
            except _Alarmed:
                await self._blocking(self._newcomer.heed)
            except _NewerDesired:
                self._news.clear()
                if self._newest is not None:
                    await self._reach(self._newest)

    async def _reach(self, desired: DesiredState) -> None:
        slots, journal, active = self._p.slots, self._p.journal, self._active.pointer()
        spare_holds_it = await self._blocking(slots.holds, slots.spare(), desired.artifact_digest)
        move = decisions.choose(journal.ledger, desired, active=active, spare_holds_it=spare_holds_it)
        log.info("desired state", generation=desired.generation, digest=desired.artifact_digest, move=move)
        match move:
            case Move.IGNORE:
                return
            case Move.CLEAR:
                self._active.serve_nothing()
                self._finish(desired, AssignmentState.SUCCEEDED)
            case Move.SETTLE:
                self._finish(desired, AssignmentState.SUCCEEDED)
            case Move.REUSE:
                known = decisions.served_here(journal.ledger, desired)
                await self._carry_on(Attempt(desired=desired, step=Step.VERIFYING, previous=active, known=known))
            case Move.DOWNLOAD:
                await self._carry_on(Attempt(desired=desired, step=Step.DOWNLOADING, previous=active))

    async def _carry_on(self, attempt: Attempt) -> None:
        """Take the steps from ``attempt.step`` on, each journaled first, until the attempt ends one way or another."""
        step: Step | None = attempt.step
        tries, pause, waits = 0, 0.0, self._p.waits()
        try:
            while step is not None:
                attempt = attempt.at(step)
                try:
                    if pause:
                        await self._unless_newer(asyncio.sleep(pause))
                        pause = 0.0
                    step, tries = await self._take(attempt), 0
                except _Alarmed:
                    attempt = await self._blocking(self._alarmed_during, attempt)
                except FoglineError as error:
                    tries += 1
                    if decisions.started(attempt) or not decisions.may_retry(error, tries):
                        raise
                    log.warning("step failed, will retry", step=step, code=error.code, reason=error.message)
                    self._tell(attempt, AssignmentState.DOWNLOADING, error.code, error.message)
                    pause = next(waits) or 1e-9
        except _NewerDesired:
            await self._blocking(self._withdraw, attempt)
        except (FoglineError, OSError) as error:
            await self._blocking(self._give_up, attempt, *_described(error))

    async def _take(self, attempt: Attempt) -> Step | None:
        """Take one step and return the next; None: the attempt is over."""
        await self._blocking(self._p.journal.begin, attempt)
        match attempt.step:
            case Step.DOWNLOADING:
                self._tell(attempt, AssignmentState.DOWNLOADING)
                await self._unless_newer(self._p.trust.check(attempt.desired))
                digest, size = attempt.desired.artifact_digest, attempt.desired.artifact_size
                await self._unless_newer(self._p.fetch(digest, size, self._p.incoming / digest))
                return Step.VERIFYING
            case Step.VERIFYING:
                await self._unless_newer(self._p.trust.check(attempt.desired))
                return await self._verify(attempt)
            case Step.STAGED:
                self._tell(attempt, AssignmentState.STAGED)
                return Step.ACTIVATING
            case Step.ACTIVATING:
                self._tell(attempt, AssignmentState.ACTIVATING)
                await self._blocking(self._activate, attempt)
                return Step.PROBATION
            case Step.PROBATION:
                self._tell(attempt, AssignmentState.PROBATION)
                await self._unless_newer(asyncio.sleep(attempt.desired.probation_s))
                await self._blocking(self._succeed, attempt)
                return None

    async def _verify(self, attempt: Attempt) -> Step:
        """Rehearse and load the candidate, from where a power cut may have left it, and stage it."""
        slots, digest = self._p.slots, attempt.desired.artifact_digest
        downloaded = self._p.incoming / digest
        spare = slots.spare()
        staged = await self._blocking(slots.holds, spare, digest)
        if not staged and not downloaded.exists():
            return Step.DOWNLOADING
        path = slots.path(spare) if staged else downloaded
        try:
            if not attempt.known:
                await self._unless_newer(self._p.rehearse(path, digest))
            await self._blocking(self._active.load, path, digest)
        except Corrupt:
            downloaded.unlink(missing_ok=True)
            raise
        await self._blocking(self._stage, path, digest, staged=staged)
        return Step.STAGED

    def _stage(self, path: Path, digest: str, *, staged: bool) -> None:
        self._newcomer.end_watch()
        if not staged:
            self._p.slots.stage(path, digest)

    def _activate(self, attempt: Attempt) -> None:
        slots, digest = self._p.slots, attempt.desired.artifact_digest
        pointer = self._active.pointer()
        if pointer is None or pointer.digest != digest:
            pointer = Pointer(slot=slots.spare(), digest=digest)
            slots.activate(pointer)
        self._active.serve_watched(pointer, attempt.previous, compare=not attempt.known)

    def _succeed(self, attempt: Attempt) -> None:
        over = self._newcomer.may_not_be_watched(attempt)
        if over:
            self._p.watchdog.end()
        self._newcomer.check()
        self._p.tell(attempt.desired, AssignmentState.SUCCEEDED, "", "")
        self._newcomer.take_over(attempt, over=over)
        if self._p.journal.ledger.attempt is not None:
            self._settle(attempt.desired.generation)
        self._clean_up()

    def _give_up(self, attempt: Attempt, code: str, message: str) -> None:
        """End the attempt: back to the model before, when the candidate may have served."""
        log.warning("candidate refused", generation=attempt.desired.generation, code=code, reason=message)
        back = decisions.started(attempt)
        if back:
            self._newcomer.go_back(attempt.desired.artifact_digest, attempt.previous)
        state = AssignmentState.REVERTED if back else AssignmentState.REJECTED
        self._finish(attempt.desired, state, code, message)

    def _withdraw(self, attempt: Attempt) -> None:
        """Leave the attempt for a newer one. An unproven candidate steps down, unless nothing else could serve."""
        if decisions.started(attempt) and attempt.previous is not None:
            self._newcomer.go_back(attempt.desired.artifact_digest, attempt.previous)
        self._settle(attempt.desired.generation)

    def _fall_back(self) -> None:
        """What should be active is damaged on disk: serve a slot that is sound, and ask for the desired state anew."""
        with contextlib.suppress(FoglineError):
            self._p.journal.forget()
        self._active.fall_back()

    def _alarmed_during(self, attempt: Attempt) -> Attempt:
        """The attempt as it goes on after an alarm; raises Corrupt when that was about its own candidate."""
        if decisions.started(attempt):
            self._newcomer.check()
            return attempt
        self._newcomer.heed()
        return replace(attempt, previous=self._active.pointer())

    def _count_start(self) -> None:
        """Count this start against the candidate, or the newcomer, and go back when there were too many."""
        attempt = self._p.journal.ledger.attempt
        if attempt is not None and attempt.step is not Step.DOWNLOADING:
            attempt = replace(attempt, starts=attempt.starts + 1)
            self._journal(attempt)
            if decisions.in_crash_loop(attempt.starts):
                self._give_up(attempt, "crash_loop", f"the process started {attempt.starts} times without finishing")
        else:
            self._newcomer.count_start()

    def _finish(self, desired: DesiredState, state: AssignmentState, code: str = "", message: str = "") -> None:
        """Report first, settle second: a power cut between them repeats the report, never loses it."""
        self._p.tell(desired, state, code, message)
        self._settle(desired.generation)
        self._clean_up()

    def _clean_up(self) -> None:
        # Nothing there is needed any more: it was staged, refused, or overtaken.
        shutil.rmtree(self._p.incoming, ignore_errors=True)
        self._active.keep_warm(self.active_digest(), self._newcomer.before())

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

    async def _blocking(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """On a thread. It outlives a task that is cancelled meanwhile, so :meth:`stop` waits for it."""

        def alone() -> T:
            with self._busy:
                return work(*args, **options)

        return await asyncio.to_thread(alone)

    def _tell(self, attempt: Attempt, state: AssignmentState, code: str = "", message: str = "") -> None:
        self._p.tell(attempt.desired, state, code, message)

    async def _unless_newer(self, work: Awaitable[None]) -> None:
        """Await ``work``, but cancel it and raise when the watchdog goes back, or a newer desired state arrives."""
        tasks = [asyncio.ensure_future(each) for each in (work, self._newcomer.alarmed.wait(), self._news.wait())]
        task, alarmed, _ = tasks
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if alarmed.done():
                raise _Alarmed
            if task.done():
                await task
                return
            raise _NewerDesired
        finally:
            for pending in tasks:
                pending.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _described(error: FoglineError | OSError) -> tuple[str, str]:
    if isinstance(error, FoglineError):
        return error.code, error.message
    return "io_failed", str(error)
