"""The model that was last taken into service, from its activation until it has proved itself.

The watchdog goes back in memory, on its own thread; here it becomes so on disk, journaled first, and is told. So does a process
that dies again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from fogline_client import decisions
from fogline_client.active import Active
from fogline_client.journal import Attempt, Journal, Watch
from fogline_client.slots import Pointer
from fogline_client.watchdog.alarm import Alarm
from fogline_client.watchdog.watchdog import Watchdog
from fogline_shared.errors import Corrupt, FoglineError, Unavailable
from fogline_shared.protocol import DesiredState
from fogline_shared.states import AssignmentState

log = structlog.get_logger()

# Between looks when nothing is due, seconds.
_LONG_S = 3600.0

Tell = Callable[[DesiredState, AssignmentState, str, str], None]
"""``(desired, state, code, message)``: report durably; callable from any thread."""


class Newcomer:
    """Belongs to the updater; ``alarmed`` is set in its loop when the watchdog went back. Blocking, one caller at a time."""

    def __init__(self, journal: Journal, active: Active, watchdog: Watchdog, tell: Tell) -> None:
        self.alarmed = asyncio.Event()
        self._journal = journal
        self._active = active
        self._watchdog = watchdog
        self._limits = watchdog.limits
        self._tell = tell
        # What the watchdog did, until it is so on disk.
        self._alarm: Alarm | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._since = time.monotonic()
        watchdog.rang = self._rang

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell of alarms there, from now on."""
        self._loop = loop
        if self._alarm is not None:
            self.alarmed.set()

    def check(self) -> None:
        """Raise Corrupt, with the alarm's code, when the watchdog went back."""
        if self._alarm is not None:
            raise Corrupt(self._alarm.code, self._alarm.message)

    def may_not_be_watched(self, attempt: Attempt) -> bool:
        """Whether there is no model to go back to, or none that would be better."""
        return attempt.previous is None or attempt.known or not self._limits.watch_s

    def take_over(self, attempt: Attempt, *, over: bool) -> None:
        """The attempt's candidate has passed its probation, and is watched further unless that is ``over``."""
        if attempt.previous is not None:
            self._write(Watch(desired=attempt.desired, previous=attempt.previous, over=over))
        self._since = time.monotonic()

    def before(self) -> str:
        """The digest of the model that is kept warm; empty: none."""
        watch = self._journal.ledger.watch
        return watch.previous.digest if watch is not None and not watch.over else ""

    def end_watch(self) -> None:
        """The slot of the model before is needed. Raises Unavailable ``going_back`` when the watchdog has just gone there."""
        self._watchdog.end()
        if self._alarm is not None:
            raise Unavailable("going_back", self._alarm.message)
        watch = self._journal.ledger.watch
        if watch is not None and not watch.over:
            self._write(replace(watch, over=True))

    def tend(self) -> float:
        """Do what is due; return the seconds until something is."""
        watch, lived = self._journal.ledger.watch, time.monotonic() - self._since
        if watch is None or watch.over:
            return _LONG_S
        if lived >= self._limits.watch_s:
            self._watchdog.end()
            if self._alarm is None:
                self._write(replace(watch, over=True))
                self._active.keep_warm(watch.desired.artifact_digest)
            return _LONG_S
        if lived >= self._limits.steady_s:
            self.forgive_start()
            return self._limits.watch_s - lived
        return min(self._limits.steady_s, self._limits.watch_s) - lived

    def count_start(self) -> None:
        """Count this start of the process against the model, or finish to go back."""
        watch = self._journal.ledger.watch
        if watch is None or (watch.over and watch.alarm is None):
            return
        alarm = watch.alarm
        if alarm is None:
            watch = replace(watch, starts=watch.starts + 1)
            if not decisions.in_crash_loop(watch.starts):
                self._write(watch)
                return
            message = f"the process started {watch.starts} times and did not live for {self._limits.steady_s:g} s"
            alarm = Alarm(watch.desired.artifact_digest, "crash_loop", message)
        self._revert(watch, alarm)

    def forgive_start(self) -> None:
        """The process has lived long enough, or ends in good order."""
        watch = self._journal.ledger.watch
        if watch is not None and watch.starts:
            self._write(replace(watch, starts=0))

    def heed(self) -> None:
        """Make what the watchdog did so on disk, and tell."""
        alarm, watch = self._alarm, self._journal.ledger.watch
        if alarm is not None and watch is not None and watch.desired.artifact_digest == alarm.digest:
            self._revert(watch, alarm)
        self._forget_alarm()

    def go_back(self, digest: str, previous: Pointer | None) -> None:
        """Serve what served before; what is lost on disk is asked for anew."""
        if not self._active.go_back(digest, previous):
            with contextlib.suppress(FoglineError):
                self._journal.forget()
        self._forget_alarm()

    def _revert(self, watch: Watch, alarm: Alarm) -> None:
        """Journaled before act: it may be taken again after a power cut."""
        log.warning("newcomer refused", generation=watch.desired.generation, code=alarm.code, reason=alarm.message)
        self._write(replace(watch, alarm=alarm))
        self.go_back(watch.desired.artifact_digest, watch.previous)
        self._tell(watch.desired, AssignmentState.REVERTED, alarm.code, alarm.message)
        self._write(None)

    def _rang(self, alarm: Alarm) -> None:
        """On the watchdog's thread."""
        self._alarm = alarm
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended: the next start sees to it
                self._loop.call_soon_threadsafe(self.alarmed.set)

    def _forget_alarm(self) -> None:
        self._alarm = None
        self.alarmed.clear()

    def _write(self, watch: Watch | None) -> None:
        try:
            self._journal.watch(watch)
        except FoglineError as error:
            log.warning("journal not written", code=error.code, reason=error.message)
