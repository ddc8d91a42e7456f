"""What the updater decides, as pure functions of the journal, the pointer and what was observed."""

from __future__ import annotations

from enum import StrEnum

from fogline_client.journal import Attempt, Ledger, Step
from fogline_client.slots import Pointer
from fogline_client.telemetry.recorder import Health
from fogline_shared.errors import ErrorKind, FoglineError
from fogline_shared.protocol import DesiredState

# A process that started this often within one attempt, without finishing it, is in a crash loop.
MAX_STARTS = 3
# A model fails its probation when at least this many predictions failed …
MIN_ERRORS = 3
# … and they are more than this share of all.
MAX_ERROR_SHARE = 0.2
# Tries of a step that fails for a reason which may pass on the device itself (a full disk, a damaged transfer).
MAX_TRIES = 4


class Move(StrEnum):
    """The first thing to do about a desired state."""

    IGNORE = "IGNORE"
    SETTLE = "SETTLE"
    CLEAR = "CLEAR"
    REUSE = "REUSE"
    DOWNLOAD = "DOWNLOAD"


def is_news(ledger: Ledger, desired: DesiredState) -> bool:
    """Whether a desired state is neither settled nor the one under way; re-sync repeats the same one for ever."""
    under_way = ledger.attempt.desired.generation if ledger.attempt else 0
    return desired.generation > max(ledger.settled, under_way)


def choose(ledger: Ledger, desired: DesiredState, *, active: Pointer | None, spare_holds_it: bool) -> Move:
    """The first thing to do, when no attempt is under way."""
    if not is_news(ledger, desired):
        return Move.IGNORE
    if not desired.artifact_digest:
        return Move.CLEAR
    if active is not None and active.digest == desired.artifact_digest:
        return Move.SETTLE
    return Move.REUSE if spare_holds_it else Move.DOWNLOAD


def started(attempt: Attempt) -> bool:
    """Whether the candidate may already serve, so that giving up means going back."""
    return attempt.step in (Step.ACTIVATING, Step.PROBATION)


def in_crash_loop(starts: int) -> bool:
    """Whether to stop trying, at this start."""
    return starts > MAX_STARTS


def served_here(ledger: Ledger, desired: DesiredState) -> bool:
    """Whether the model is the one that served before the one that serves: the coordinator goes back by itself."""
    return ledger.watch is not None and ledger.watch.previous.digest == desired.artifact_digest


def unfit(before: Health, now: Health) -> str:
    """Why the candidate fails its probation, or an empty string. Counts are since this process started."""
    errors, predictions = now.errors - before.errors, now.predictions - before.predictions
    if errors >= MIN_ERRORS and errors > MAX_ERROR_SHARE * predictions:
        return f"{errors} of {predictions} predictions failed"
    return ""


def may_retry(error: FoglineError, tries: int) -> bool:
    """Whether another try of a step may help: the network comes back, a full disk only sometimes does."""
    if error.kind is ErrorKind.UNAVAILABLE:
        return True
    return (error.kind is ErrorKind.EXHAUSTED or error.code == "digest_mismatch") and tries < MAX_TRIES
