"""What the agent is about to do, on disk before it does it (write-ahead, as in Mender's state machine).

One JSON file. ``settled`` is the highest generation that came to an end, well or badly; ``attempt`` is the one under way;
``watch`` is the model that was last taken into service, and what the device goes back to if it fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

from fogline_client import durable
from fogline_client.slots import Pointer
from fogline_client.watchdog.alarm import Alarm
from fogline_shared.errors import Corrupt
from fogline_shared.protocol import DesiredState

log = structlog.get_logger()


class Step(StrEnum):
    """The steps of an attempt, in order. VERIFYING loads foreign bytes, so it is journaled: it may kill the process."""

    DOWNLOADING = "DOWNLOADING"
    VERIFYING = "VERIFYING"
    STAGED = "STAGED"
    ACTIVATING = "ACTIVATING"
    PROBATION = "PROBATION"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One move towards a desired state.

    ``previous``: what a revert returns to. ``starts``: how often the process started within this attempt since the
    foreign model was first loaded, and did not end in good order; a crash loop is seen by it. ``known``: the model served
    here before, so that its being unlike the one that serves now is no fault.
    """

    desired: DesiredState
    step: Step
    previous: Pointer | None = None
    starts: int = 0
    known: bool = False

    def at(self, step: Step) -> Attempt:
        """The same attempt, one step on."""
        return replace(self, step=step)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """A model that passed its probation, and what served before it. ``starts``: as in :class:`Attempt`, of late.

    ``over``: it has proved itself, or its forerunner is not there any more. ``alarm``: the device is going back, and why.
    """

    desired: DesiredState
    previous: Pointer
    starts: int = 0
    over: bool = False
    alarm: Alarm | None = None


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All that the journal holds."""

    settled: int = 0
    attempt: Attempt | None = None
    watch: Watch | None = None


class Journal:
    """The journal file. :attr:`ledger` is its content; a write that fails leaves both as they were."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.ledger = read_ledger(path)
        except Corrupt as error:
            # Desired state comes again with the next sync; a damaged journal must not stop inference for ever.
            log.warning("journal discarded", code=error.code, reason=error.message)
            self.ledger = Ledger()

    def write(self, ledger: Ledger) -> None:
        """Replace the content durably; raises Exhausted ``disk_full``."""
        durable.write_json(self._path, asdict(ledger))
        self.ledger = ledger

    def begin(self, attempt: Attempt) -> None:
        """Record an attempt, or its next step."""
        self.write(replace(self.ledger, attempt=attempt))

    def settle(self, generation: int) -> None:
        """Record that a generation came to its end. In memory in any case."""
        settled = max(generation, self.ledger.settled)
        self._write_in_any_case(replace(self.ledger, settled=settled, attempt=None))

    def watch(self, watch: Watch | None) -> None:
        """Record what is watched; with the end of its attempt, if that is under way. In memory in any case."""
        ledger, attempt = replace(self.ledger, watch=watch), self.ledger.attempt
        if watch is not None and attempt is not None and watch.desired.generation == attempt.desired.generation:
            ledger = replace(ledger, settled=max(attempt.desired.generation, ledger.settled), attempt=None)
        self._write_in_any_case(ledger)

    def forget(self) -> None:
        """Start anew, so that the next sync brings the device to its desired state again. In memory in any case."""
        self._write_in_any_case(Ledger())

    def _write_in_any_case(self, ledger: Ledger) -> None:
        try:
            self.write(ledger)
        finally:
            self.ledger = ledger


def read_ledger(path: Path) -> Ledger:
    """What a journal's file holds, for readers in other processes too. Raises Corrupt ``bad_journal``."""
    raw: Any = durable.read_json(path, code="bad_journal")
    if raw is None:
        return Ledger()
    try:
        attempt, watch = raw["attempt"], raw.get("watch")
        return Ledger(
            settled=int(raw["settled"]),
            attempt=None if attempt is None else _attempt_from(attempt),
            watch=None if watch is None else _watch_from(watch),
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise Corrupt("bad_journal", f"the journal lacks a field or has a wrong one: {error}") from error


def _attempt_from(raw: Mapping[str, Any]) -> Attempt:
    previous = raw["previous"]
    return Attempt(
        desired=DesiredState(**raw["desired"]),
        step=Step(raw["step"]),
        previous=None if previous is None else Pointer(**previous),
        starts=int(raw["starts"]),
        known=bool(raw.get("known", False)),
    )


def _watch_from(raw: Mapping[str, Any]) -> Watch:
    desired, previous, alarm = DesiredState(**raw["desired"]), Pointer(**raw["previous"]), raw["alarm"]
    return Watch(
        desired=desired,
        previous=previous,
        starts=int(raw["starts"]),
        over=bool(raw["over"]),
        alarm=None if alarm is None else Alarm(*alarm),
    )
