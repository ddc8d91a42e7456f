"""The thread that watches. An event loop would not do: a model that hangs may hang in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from fogline_client.inference.model import LoadedModel
from fogline_client.inference.trial import Trial
from fogline_client.watchdog.alarm import Alarm
from fogline_client.watchdog.comparison import ask_both, worse
from fogline_client.watchdog.failures import failing
from fogline_client.watchdog.hanging import Hanging
from fogline_client.watchdog.limits import WatchdogLimits

log = structlog.get_logger()

# A failed call wakes it at once; this is for calls that hang.
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.02, 0.5
_JOIN_S = 2.0


class Runtime(Protocol):
    """What serves (:class:`~fogline_client.inference.predictor.Predictor`)."""

    def try_out(self, trial: Trial | None) -> None:
        """Let a trial take part in the calls of its model; None: no more."""

    def swap_if(self, digest: str, model: LoadedModel | None) -> bool:
        """Serve ``model`` if ``digest`` serves at this moment."""


class Watchdog:
    """One trial at a time. ``rang`` is called on its thread, after the model before serves again, in memory."""

    def __init__(self, runtime: Runtime, limits: WatchdogLimits) -> None:
        self.limits = limits
        self.rang: Callable[[Alarm], None] = lambda _: None
        self._runtime = runtime
        self._lock = threading.Lock()
        self._watch: _Watch | None = None

    def begin(self, model: LoadedModel, before: LoadedModel | None, *, compare: bool) -> None:
        """Watch a model from just before it serves. ``compare``: it must not be much worse than the one before."""
        self.end()
        trial = Trial(model, before, sample=self.limits.sample)
        watch = _Watch(trial, before, self.limits, compare=compare)
        with self._lock:
            self._watch = watch
            self._runtime.try_out(trial)
        watch.start(self._run)

    def end(self) -> bool:
        """Stop watching; no alarm comes after. Returns whether anything was watched."""
        with self._lock:
            watch, self._watch = self._watch, None
            if watch is None:
                return False
            self._runtime.try_out(None)
        watch.end()
        return True

    def _run(self, watch: _Watch) -> None:
        while (alarm := watch.wait()) is None:
            if watch.ended:
                return
        with self._lock:
            if self._watch is not watch:
                return
            self._watch = None
            # In memory first, and before the calls under way are told to end: they then find a model that answers.
            self._runtime.swap_if(alarm.digest, watch.before)
            self._runtime.try_out(None)
            watch.ended = True
            watch.trial.model.stop()
            self.rang(alarm)
        log.warning("model reverted", digest=alarm.digest, code=alarm.code, reason=alarm.message)


class _Watch:
    """What is known of one trial."""

    def __init__(self, trial: Trial, before: LoadedModel | None, limits: WatchdogLimits, *, compare: bool) -> None:
        self.trial = trial
        # Goes back to it even where it takes other inputs, and can be compared with nothing.
        self.before = before
        self.ended = False
        self._limits = limits
        self._compare = compare and trial.before is not None
        self._hanging = Hanging(trial.model.digest, hang_s=limits.hang_s)
        self._look_s = min(_LONGEST_LOOK_S, max(_SHORTEST_LOOK_S, limits.hang_s / 4))
        self._looked = self._compared = time.monotonic()
        self._first = True
        self._found: Alarm | None = None
        self._threads: list[threading.Thread] = []

    def start(self, run: Callable[[_Watch], None]) -> None:
        """Look on a thread of its own, until it ends."""
        self._start(run, self, name="watchdog")

    def end(self) -> None:
        """Let the threads go: an interpreter that ends while one is in an engine would abort."""
        self.ended = True
        self.trial.end()
        self.trial.noticed.set()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def wait(self) -> Alarm | None:
        """Wait for a failed call, or a moment, and look."""
        self.trial.noticed.wait(self._look_s)
        self.trial.noticed.clear()
        if self.ended:
            return None
        now = time.monotonic()
        since, self._looked = now - self._looked, now
        digest = self.trial.model.digest
        calls, failed = self.trial.counts()
        alarm = failing(digest, calls, failed, self._limits) or self._hanging.look(self.trial.running(), since)
        if alarm is None and self._compare:
            self._start_to_compare(now)
        return alarm or self._found

    def _start_to_compare(self, now: float) -> None:
        """On a thread of its own: a model that hangs there is found here, as in any other call."""
        if not self._first and now - self._compared < self._limits.compare_every_s:
            return
        if inputs := self.trial.take_inputs():
            self._first, self._compared = False, now
            self._start(self._try_both, inputs, name="comparison")

    def _start(self, run: Callable[[Any], None], argument: object, *, name: str) -> None:
        thread = threading.Thread(target=run, args=(argument,), name=name, daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def _try_both(self, inputs: Sequence[NDArray[np.float32]]) -> None:
        trial = self.trial
        both = ask_both(trial, inputs, stop=lambda: self.ended)
        if both is not None and not self.ended:
            classes = len(trial.model.manifest.classes)
            self._found = worse(trial.model.digest, *both, classes, self._limits)
            if self._found:
                trial.noticed.set()
