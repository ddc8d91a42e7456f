"""Every state machine, as one readable table each. Nothing else decides what may follow what.

A row that holds a state changes it through :meth:`Transitions.check`; the tables are what ``docs/glossary.md``
and the console print.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from fogline_shared.errors import Conflict

S = TypeVar("S", bound=StrEnum)


@dataclass(frozen=True, kw_only=True)
class Transitions(Generic[S]):
    """A transition table: for each state the states that may follow. No successors means terminal."""

    subject: str
    table: Mapping[S, frozenset[S]]

    def check(self, current: S, target: S) -> S:
        """Return ``target``; raise :class:`Conflict` ``illegal_transition`` when it may not follow ``current``."""
        if target not in self.table[current]:
            allowed = ", ".join(sorted(self.table[current])) or "nothing: it is final"
            raise Conflict(
                "illegal_transition",
                f"a {self.subject} cannot go from {current} to {target}; allowed: {allowed}",
                subject=self.subject,
                current=str(current),
                target=str(target),
            )
        return target

    def terminal(self, state: S) -> bool:
        """Whether nothing may follow ``state``."""
        return not self.table[state]


class DeviceState(StrEnum):
    PENDING = "PENDING"
    ACTIVE = "ACTIVE"
    REVOKED = "REVOKED"


DEVICE = Transitions(
    subject="device",
    table={
        DeviceState.PENDING: frozenset({DeviceState.ACTIVE, DeviceState.REVOKED}),
        DeviceState.ACTIVE: frozenset({DeviceState.REVOKED}),
        DeviceState.REVOKED: frozenset(),
    },
)


class JobState(StrEnum):
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


JOB = Transitions(
    subject="job",
    table={
        # QUEUED → FAILED: attempts are used up, or a job it depends on failed.
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELED, JobState.FAILED}),
        # RUNNING → QUEUED: the lease expired; the reconciler rings again.
        JobState.RUNNING: frozenset({JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED}),
        JobState.SUCCEEDED: frozenset(),
        JobState.FAILED: frozenset({JobState.QUEUED}),
        JobState.CANCELED: frozenset(),
    },
)


class RunState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


RUN = Transitions(
    subject="run",
    table={
        RunState.PENDING: frozenset({RunState.RUNNING, RunState.PAUSED, RunState.CANCELED, RunState.FAILED}),
        RunState.RUNNING: frozenset({RunState.PAUSED, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELED}),
        RunState.PAUSED: frozenset({RunState.RUNNING, RunState.CANCELED, RunState.FAILED}),
        # SUCCEEDED → RUNNING: it was extended.
        RunState.SUCCEEDED: frozenset({RunState.RUNNING}),
        RunState.FAILED: frozenset(),
        RunState.CANCELED: frozenset(),
    },
)


class RoundState(StrEnum):
    OPEN = "OPEN"
    COMMITTED = "COMMITTED"
    REFUSED = "REFUSED"
    ABANDONED = "ABANDONED"


ROUND = Transitions(
    subject="round",
    table={
        # REFUSED: its model was worse on the holdout, or not finite; the run goes on from the old one.
        RoundState.OPEN: frozenset({RoundState.COMMITTED, RoundState.REFUSED, RoundState.ABANDONED}),
        RoundState.COMMITTED: frozenset(),
        RoundState.REFUSED: frozenset(),
        RoundState.ABANDONED: frozenset(),
    },
)


class UpdateVerdict(StrEnum):
    """What became of one device's reply. Only ACCEPTED ones reach a strategy."""

    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    LATE = "LATE"
    ERROR = "ERROR"


class ReleaseState(StrEnum):
    BUILDING = "BUILDING"
    READY = "READY"
    UNLISTED = "UNLISTED"
    FAILED = "FAILED"


RELEASE = Transitions(
    subject="release",
    table={
        ReleaseState.BUILDING: frozenset({ReleaseState.READY, ReleaseState.FAILED}),
        # UNLISTED: still sealed and kept, but in no signed metadata, so that no device installs it anew.
        ReleaseState.READY: frozenset({ReleaseState.UNLISTED}),
        ReleaseState.UNLISTED: frozenset({ReleaseState.READY}),
        ReleaseState.FAILED: frozenset(),
    },
)


class RolloutState(StrEnum):
    DRAFT = "DRAFT"
    SCHEDULED = "SCHEDULED"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    ROLLING_BACK = "ROLLING_BACK"
    ROLLED_BACK = "ROLLED_BACK"
    CANCELED = "CANCELED"
    SUPERSEDED = "SUPERSEDED"


ROLLOUT = Transitions(
    subject="rollout",
    table={
        RolloutState.DRAFT: frozenset({RolloutState.SCHEDULED, RolloutState.CANCELED}),
        RolloutState.SCHEDULED: frozenset({RolloutState.RUNNING, RolloutState.CANCELED, RolloutState.SUPERSEDED}),
        RolloutState.RUNNING: frozenset(
            {RolloutState.PAUSED, RolloutState.SUCCEEDED, RolloutState.ROLLING_BACK, RolloutState.SUPERSEDED}
        ),
        RolloutState.PAUSED: frozenset({RolloutState.RUNNING, RolloutState.ROLLING_BACK, RolloutState.SUPERSEDED}),
        RolloutState.SUCCEEDED: frozenset({RolloutState.ROLLING_BACK, RolloutState.SUPERSEDED}),
        RolloutState.ROLLING_BACK: frozenset({RolloutState.ROLLED_BACK}),
        RolloutState.ROLLED_BACK: frozenset(),
        RolloutState.CANCELED: frozenset(),
        RolloutState.SUPERSEDED: frozenset(),
    },
)


class StageState(StrEnum):
    PENDING = "PENDING"
    ADMITTING = "ADMITTING"
    SOAKING = "SOAKING"
    EVALUATING = "EVALUATING"
    PASSED = "PASSED"
    FAILED = "FAILED"
    INCONCLUSIVE = "INCONCLUSIVE"


STAGE = Transitions(
    subject="stage",
    table={
        # A device of an earlier stage, or a gate, may fail a stage at any time; it passes only after soak and evaluation.
        StageState.PENDING: frozenset({StageState.ADMITTING, StageState.FAILED}),
        StageState.ADMITTING: frozenset({StageState.SOAKING, StageState.FAILED}),
        StageState.SOAKING: frozenset({StageState.EVALUATING, StageState.FAILED}),
        StageState.EVALUATING: frozenset({StageState.PASSED, StageState.FAILED, StageState.INCONCLUSIVE}),
        StageState.INCONCLUSIVE: frozenset({StageState.EVALUATING, StageState.FAILED}),
        StageState.PASSED: frozenset(),
        StageState.FAILED: frozenset(),
    },
)


class AssignmentState(StrEnum):
    PENDING = "PENDING"
    OFFERED = "OFFERED"
    DOWNLOADING = "DOWNLOADING"
    STAGED = "STAGED"
    ACTIVATING = "ACTIVATING"
    PROBATION = "PROBATION"
    SUCCEEDED = "SUCCEEDED"
    REJECTED = "REJECTED"
    REVERTED = "REVERTED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    SUPERSEDED = "SUPERSEDED"


_ASSIGNMENT_ORDER = (
    AssignmentState.PENDING,
    AssignmentState.OFFERED,
    AssignmentState.DOWNLOADING,
    AssignmentState.STAGED,
    AssignmentState.ACTIVATING,
    AssignmentState.PROBATION,
    AssignmentState.SUCCEEDED,
)
_ASSIGNMENT_ENDS = frozenset(
    {
        AssignmentState.REJECTED,
        AssignmentState.REVERTED,
        AssignmentState.TIMED_OUT,
        AssignmentState.CANCELED,
        AssignmentState.SUPERSEDED,
    }
)
ASSIGNMENT = Transitions(
    subject="assignment",
    table={
        # Reports may be lost, never reordered: a device may skip forward, not go back.
        **{
            state: frozenset(_ASSIGNMENT_ORDER[i + 1 :]) | _ASSIGNMENT_ENDS
            for i, state in enumerate(_ASSIGNMENT_ORDER[:-1])
        },
        # A device that has succeeded may still revert by its own watchdog.
        AssignmentState.SUCCEEDED: frozenset({AssignmentState.REVERTED, AssignmentState.SUPERSEDED}),
        **{state: frozenset() for state in _ASSIGNMENT_ENDS},
    },
)


class Verdict(StrEnum):
    """A gate's answer. No data is HOLD, never PASS."""

    PASS = "PASS"
    HOLD = "HOLD"
    FAIL = "FAIL"
