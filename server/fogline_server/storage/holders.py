"""Who needs which blob: every column of the schema that may hold a digest, and when it keeps what it names.

In doubt a blob is kept. Digests within JSON are looked for wherever they stand, so that a field that is added tomorrow keeps its
blob without being named here; what is history only (an event, a hash chain's account of updates) is named, and keeps nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select, true
from sqlalchemy.orm import Session, aliased
from sqlalchemy.orm.attributes import InstrumentedAttribute

from fogline_server.batch.tables import Shard
from fogline_server.devices.tables import Device
from fogline_server.jobs.tables import Job
from fogline_server.registry.tables import Delta, Release, Variant
from fogline_server.rollouts.tables import Assignment, Desired, Rollout, Stage
from fogline_server.schedules.tables import Schedule
from fogline_server.search.tables import Candidate, Search, Trial
from fogline_server.training.tables import Round, Run, Task, Update
from fogline_shared.states import JobState, RunState

_DIGEST = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_ALWAYS = true()

# A run that has succeeded may be extended, a job that has failed tried again.
_RUN_WORKS = ~Run.state.in_([RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELED])
_RUN_MAY_GO_ON = ~Run.state.in_([RunState.FAILED, RunState.CANCELED])
_parent = aliased(Job)
_JOB_MAY_GO_ON = ~_parent.state.in_([JobState.SUCCEEDED, JobState.CANCELED])
# What a search has found it may come back to; of one that has ended its result names the front, which stays.
_SEARCH_MAY_GO_ON = and_(Search.id.is_not(None), _JOB_MAY_GO_ON)
# An asynchronous run that is extended takes what is still in its buffer; only its updates are given a step.
_run_of_taken = aliased(Task)
_ASYNCHRONOUS = Run.id.in_(
    select(_run_of_taken.run_id).join(Update, Update.task_id == _run_of_taken.id).where(Update.step.is_not(None))
)
_BUFFERED = and_(Update.step.is_(None), _RUN_MAY_GO_ON, _ASYNCHRONOUS)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A column that names blobs, as a text or somewhere in its JSON. ``kind``: what they are; ``needed``: of which rows they are kept; ``joins``: for that."""

    column: InstrumentedAttribute[Any]
    kind: str
    needed: ColumnElement[bool] = _ALWAYS
    joins: tuple[tuple[Any, ColumnElement[bool]], ...] = ()

    @property
    def name(self) -> str:
        """``table.column``."""
        return f"{self.column.class_.__tablename__}.{self.column.key}"

    def digests(self, session: Session, *, needed: bool) -> Iterator[str]:
        """Those of all rows, or of the rows that keep them."""
        query = select(self.column).where(self.column.is_not(None))
        if needed:
            for table, on in self.joins:
                query = query.outerjoin(table, on)
            query = query.where(self.needed)
        for value in session.scalars(query.execution_options(yield_per=1000)):
            yield from texts(value)


_OF_TASK = ((Run, Run.id == Task.run_id), (Update, Update.task_id == Task.id))
_OF_UPDATE = ((Task, Task.id == Update.task_id), (Run, Run.id == Task.run_id))
_OF_CANDIDATE = (
    (Trial, Trial.key == Candidate.key),
    (Search, Search.id == Trial.search_id),
    (_parent, _parent.id == Search.job_id),
)
_OF_ROUND = ((Run, Run.id == Round.run_id),)

# The first that names a blob says what it is.
HOLDERS: tuple[Holder, ...] = (
    Holder(column=Variant.digest, kind="artifact"),
    Holder(column=Rollout.artifact_digest, kind="artifact"),
    Holder(column=Assignment.previous_digest, kind="artifact"),
    Holder(column=Desired.artifact_digest, kind="artifact"),
    Holder(column=Device.active_digest, kind="artifact"),
    Holder(column=Delta.target_digest, kind="artifact"),
    Holder(column=Delta.base_digest, kind="artifact"),
    Holder(column=Delta.digest, kind="delta"),
    Holder(column=Candidate.digest, kind="candidate", needed=_SEARCH_MAY_GO_ON, joins=_OF_CANDIDATE),
    Holder(column=Search.result, kind="candidate"),
    Holder(column=Search.spec, kind="other"),
    Holder(column=Candidate.metrics, kind="other"),
    Holder(column=Candidate.error, kind="other"),
    # Its parameters are what a run has come to; a release or another run may begin from those of any.
    Holder(column=Run.params_digest, kind="parameters"),
    Holder(column=Run.strategy_state_digest, kind="strategy state", needed=_RUN_MAY_GO_ON),
    Holder(column=Round.params_in, kind="parameters", needed=_RUN_WORKS, joins=_OF_ROUND),
    Holder(column=Round.params_out, kind="parameters", needed=_RUN_WORKS, joins=_OF_ROUND),
    Holder(column=Update.digest, kind="update", needed=or_(_RUN_WORKS, _BUFFERED), joins=_OF_UPDATE),
    Holder(column=Task.blobs, kind="parameters", needed=or_(_RUN_WORKS, _BUFFERED), joins=_OF_TASK),
    Holder(
        column=Shard.output_digest,
        kind="batch output",
        needed=_JOB_MAY_GO_ON,
        joins=((_parent, _parent.id == Shard.job_id),),
    ),
    # Variants that were left out.
    Holder(column=Release.report, kind="artifact"),
    Holder(column=Release.lineage, kind="parameters"),
    Holder(column=Release.error, kind="other"),
    Holder(column=Variant.metrics, kind="other"),
    Holder(column=Run.spec, kind="parameters"),
    Holder(column=Run.statistics, kind="other"),
    Holder(column=Run.error, kind="other"),
    Holder(column=Round.metrics, kind="other"),
    Holder(column=Round.attempts, kind="other"),
    Holder(column=Round.pace, kind="other"),
    Holder(column=Round.error, kind="other"),
    Holder(column=Rollout.plan, kind="other"),
    Holder(column=Stage.evidence, kind="other"),
    Holder(column=Schedule.spec, kind="parameters"),
    Holder(column=Job.spec, kind="other"),
    # A shard's result says again what its own row says.
    Holder(
        column=Job.result,
        kind="other",
        needed=or_(Shard.output_digest.is_(None), _JOB_MAY_GO_ON),
        joins=((Shard, Shard.shard_job_id == Job.id), (_parent, _parent.id == Shard.job_id)),
    ),
    Holder(column=Job.error, kind="other"),
)

# Columns that look as if they held digests of blobs, or may, and that keep none; why.
KEEPS_NOTHING: Mapping[str, str] = {
    "api_keys.secret_hash": "the HMAC of a key",
    "enrollment_tokens.secret_hash": "the hash of a token",
    "enrollment_tokens.tags": "words",
    "idempotent_requests.fingerprint": "the hash of a request",
    "idempotent_requests.body": "an answer that was given",
    "privacy_accounts.secret": "what noise is drawn from",
    "compression_candidates.key": "the hash of what a candidate is made of",
    "compression_candidates.chain": "methods and options",
    "compression_trials.key": "the same",
    "measurements.digest": "a variant's artifact, whose own row keeps it",
    "measurements.metrics": "figures",
    "measurements.error": "why there are none",
    "populations.tags": "words",
    "devices.tags": "words",
    "devices.recipes": "words",
    "devices.attributes": "what a device says of itself",
    "devices.drift": "what a device said of its inputs, and of which artifact",
    "rounds.cohort": "devices",
    "events.data": "what happened",
    "schedules.last_result": "what was started, which has a row of its own",
    "tasks.records": "a message; its arrays are in tasks.blobs",
    "updates.records": "a message; its arrays are in updates.digest",
    "telemetry_windows.artifact_digest": "what a device ran then",
    "telemetry_windows.sketches": "measurements",
    "trust_metadata.body": "signed names of variants, whose rows stay",
}


def texts(value: Any) -> Iterator[str]:
    """Every digest in a piece of JSON; of a round in a release's hash chain none, for that tells what was, not what is needed."""
    if isinstance(value, str):
        yield from _DIGEST.findall(value)
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
    elif isinstance(value, dict) and value.get("step") != "round":
        for name, each in value.items():
            yield from _DIGEST.findall(name)
            yield from texts(each)


def needed(session: Session) -> set[str]:
    """Every digest that some row needs now."""
    return {digest for holder in HOLDERS for digest in holder.digests(session, needed=True)}


def kinds(session: Session) -> dict[str, str]:
    """What each blob is that any row names, needed or not."""
    found: dict[str, str] = {}
    for holder in HOLDERS:
        for digest in holder.digests(session, needed=False):
            found.setdefault(digest, holder.kind)
    return found
