"""What a feature implements to have work done by the job engine.

A runner is a plain function ``(JobContext) -> Outcome``. It may run more than once (a worker died, a lease expired), so
it works on content-addressed inputs and continues from what it finds; its effect on the database is
:attr:`Outcome.commit`, which runs in the transaction that also ends the job, and only if the job's epoch still matches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy.orm import Session

from fogline_shared.errors import FoglineError
from fogline_shared.states import JobState

if TYPE_CHECKING:
    from fogline_server.blobs.store import BlobStore
    from fogline_server.db.database import Database
    from fogline_server.jobs.doorbell import Doorbell


class JobCanceled(Exception):
    """Raised inside a runner by :meth:`JobContext.progress` when somebody canceled the job."""


class LeaseLost(Exception):
    """Raised inside a runner when another worker has taken the job over: stop at once, write nothing."""


class Lease(Protocol):
    """The worker's hold on a job."""

    job_id: str
    epoch: int

    def check(self, session: Session) -> None:
        """Raise LeaseLost unless this epoch still holds the job. Call first in any transaction that writes."""

    def progress(self, done: int, total: int, message: str = "") -> None:
        """Store progress and extend the lease; raises JobCanceled or LeaseLost. Cheap to call often."""


def _not_here(_job_id: str) -> JobState | None:
    """Without an engine at hand, children run on other workers only."""
    return None


@dataclass(frozen=True, kw_only=True)
class JobContext:
    """Everything a runner may use. ``lease`` is kept alive by the engine's heartbeat thread meanwhile."""

    job_id: str
    spec: Mapping[str, Any]
    attempt: int
    db: Database
    blobs: BlobStore
    doorbell: Doorbell
    lease: Lease
    # Claims and runs another job in this process, as a worker would (``Engine.execute``); None: it was not free.
    # A parent that helps with its own children cannot starve them of workers.
    execute: Callable[[str], JobState | None] = _not_here


def _nothing(_session: Session) -> None:
    """The default commit of an outcome that only returns a result."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """``result`` is stored on the job (JSON); ``commit`` writes the effect in the transaction that ends the job."""

    result: Mapping[str, Any] = field(default_factory=dict)
    commit: Callable[[Session], None] = _nothing


Runner = Callable[[JobContext], Outcome]
# Runs in the transaction that ends a job as FAILED or CANCELED: the feature marks its own row.
OnFailure = Callable[[Session, str, FoglineError], None]


@dataclass(frozen=True, kw_only=True)
class JobKind:
    """A kind of job: its name, the Celery queue it goes to, its runner, what to do when it has finally failed.

    ``instead_of_retry``: what a person should do, if such a failure has ended more than the job (its run, its release).
    """

    name: str
    queue: str
    run: Runner
    on_failure: OnFailure | None = None
    max_attempts: int = 3
    instead_of_retry: str = ""
