"""What the rows of a live run remember for its pacing, in virtual time: earlier attempts, and who was asked."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fogline_server.simulation.clock import Closing
from fogline_server.training.pacing import Pace, Past, pace_of, rest_rounds
from fogline_server.training.spec import RunSpec

# Attempts after a round's first draw their devices and their luck as a round of such a number would.
_ANOTHER = 1_000_003


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """``number``: from 1; ``turn``: what its chances are drawn by; ``asked`` and ``target`` None: as the spec says."""

    round: int
    number: int
    deadline_s: float
    asked: int | None = None
    target: int | None = None

    @property
    def turn(self) -> int:
        """The round's number for a first attempt, another for each later one."""
        return self.round + (self.number - 1) * _ANOTHER


class Pacer:
    """Paces the attempts of a simulated run over a fleet of so many devices."""

    def __init__(self, run: RunSpec, devices: int) -> None:
        self._run, self._devices = run, devices
        self._past: list[Past] = []
        self._cohorts: list[Collection[int]] = []

    def attempt(self, round_number: int, number: int, now_s: float) -> Attempt:
        """The next attempt."""
        run = self._run
        pace: Pace | None = pace_of(
            run.pacing,
            self._past,
            quorum=run.quorum,
            fewest=run.fewest_updates,
            deadline_s=run.round_deadline_s,
            now_s=now_s,
        )
        if pace is None:
            return Attempt(round=round_number, number=number, deadline_s=run.round_deadline_s)
        asked = min(pace.asked, self._devices, run.max_devices or pace.asked)
        deadline_s, target = pace.deadline_s, pace.target
        return Attempt(round=round_number, number=number, deadline_s=deadline_s, asked=asked, target=target)

    def resting(self, asked: int) -> Collection[int]:
        """Who lets others go first."""
        if not self._run.pacing.steering:
            return ()
        latest = self._cohorts[: rest_rounds(self._devices, asked)]
        return {device for cohort in latest for device in cohort}

    def note(self, attempt: Attempt, began_s: float, closing: Closing, refused: Collection[int]) -> None:
        """An exchange of training has closed; ``refused``: whose updates were of no use."""
        good = sorted(seconds for device, seconds in closing.answers_s.items() if device not in refused)
        cohort = closing.in_time | closing.late | closing.lost
        past = Past(sent_s=began_s, deadline_s=attempt.deadline_s, asked=len(cohort), answers_s=good)
        self._past.append(past)
        if self._run.pacing.steering:
            self._cohorts.insert(0, cohort)
