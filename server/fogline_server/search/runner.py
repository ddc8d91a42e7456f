"""A compression search: plan a rung, help with its candidates, keep the best third, and so on to the pick. A job's body.

It may be killed anywhere. A rung's trials and their jobs are written in one transaction; a candidate that was made is in its row;
so a search that is taken up again comes to the same decisions and goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.compression.chain import Chain
from fogline_server.compression.front import Measured
from fogline_server.db.base import utc_now
from fogline_server.jobs import service as jobs
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.jobs.tables import Job
from fogline_server.search import conclusion, halving, releasing
from fogline_server.search.candidate import usable
from fogline_server.search.evidence import measure
from fogline_server.search.model import SearchSpec
from fogline_server.search.outcomes import Tried
from fogline_server.search.service import CANDIDATE, QUEUE
from fogline_server.search.source import Source, open_source
from fogline_server.search.space import Entry, divided, entries
from fogline_server.search.tables import Candidate, Search, Trial
from fogline_shared.states import JobState

POLL_S = 0.1
# One less than the search's own: a chain that kills its worker kills the search that helps, and must not outlive it.
ATTEMPTS = 2


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What a search's job holds in hands."""

    ctx: JobContext
    search: Search
    spec: SearchSpec
    source: Source
    total: int


def run_search(ctx: JobContext) -> Outcome:
    """Try the space, rung by rung; the result is that of the search's row, and with a name there is a release."""
    with ctx.db.read() as session:
        search = session.get_one(Search, ctx.spec["search_id"])
    spec, source = SearchSpec.from_json(search.spec), open_source(ctx.db, ctx.blobs, search)
    tried, left_out = divided(entries(spec.chains, spec.steps), source.recipe)
    trained = [entry for entry in tried if entry.trains]
    work = _Work(
        ctx=ctx,
        search=search,
        spec=spec,
        source=source,
        total=len(tried) - len(trained) + halving.expected(len(trained)),
    )
    parent = measure(source.model, source.model, source.evidence)
    outcomes = _halve(work, tried, Measured.of("float parent", parent["choosing"] | parent))
    ctx.lease.progress(work.total, work.total, "choosing")
    found = conclusion.conclude(spec, source, outcomes, left_out, parent=parent, read=ctx.blobs.read)
    return Outcome(result=found.summary(), commit=partial(_commit, search_id=search.id, spec=spec, found=found))


def _commit(session: Session, *, search_id: str, spec: SearchSpec, found: conclusion.Conclusion) -> None:
    search = session.get_one(Search, search_id)
    release = None
    if spec.name is not None and found.pick is not None:
        release = releasing.create(session, search, spec.name, found, now=utc_now())
    for tried in found.finalists.values():
        # The same search, asked again, compares what was measured side by side.
        session.get_one(Candidate, tried.key).metrics = dict(tried.metrics or {})
    search.result = {**found.as_json(), "release": release}


def _halve(work: _Work, tried: Sequence[Entry], parent: Measured) -> list[list[Tried]]:
    """What was tried at each rung. Chains that do not train are in the first, and nothing drops them."""
    left = [entry for entry in tried if entry.trains]
    shares = halving.shares(len(left))
    rungs: list[list[Tried]] = []
    for rung, share in enumerate(shares):
        once = [entry for entry in tried if not entry.trains] if rung == 0 else []
        chains = {entry.number: entry.chain for entry in once}
        chains |= {entry.number: entry.with_share(share) for entry in left}
        found = _rung(work, rung, {entry.number: entry for entry in [*once, *left]}, chains, share)
        rungs.append(found)
        if rung + 1 < len(shares):
            forms = [each.form() for each in found if each.entry.trains and each.metrics is not None]
            kept = set(halving.survivors(forms, work.spec.limits, parent=parent))
            left = [entry for entry in left if entry.name in kept]
    return rungs


def _rung(work: _Work, rung: int, space: Mapping[int, Entry], chains: Mapping[int, Chain], share: float) -> list[Tried]:
    """All candidates of a rung, when each has been made or has failed; entries and their chains by number."""
    _plan(work, rung, space, chains)
    while True:
        standing = _look(work, rung)
        settled = [each for each in standing if each.settled]
        done = _done_before(work, rung) + len(settled)
        message = f"rung {rung + 1}: {len(settled)} of {len(standing)} candidates"
        work.ctx.lease.progress(min(done, work.total), work.total, message)
        if len(settled) == len(standing):
            return [each.tried(space[each.trial.number], share) for each in standing]
        # Those that ended a worker once come last: the search may be the next to die of them.
        free = sorted((s.job for s in standing if s.free and s.job is not None), key=lambda job: job.attempts)
        # None: somebody else was faster; QUEUED: it failed here and will be tried again.
        if not free or work.ctx.execute(free[0].id) in (None, JobState.QUEUED):
            time.sleep(POLL_S)


def _plan(work: _Work, rung: int, space: Mapping[int, Entry], chains: Mapping[int, Chain]) -> None:
    """Write the rung's trials, and jobs for what is not in the cache. An attempt before this one may have begun."""
    keys = {number: work.source.key(chain, space[number].name) for number, chain in chains.items()}
    with work.ctx.db.transaction() as session:
        work.ctx.lease.check(session)
        planned = {trial.number for trial in _trials(session, work.search.id, rung)}
        for number in sorted(set(keys) - planned):
            session.add(Trial(search_id=work.search.id, number=number, rung=rung, key=keys[number], job_id=None))
    # From here on a collection keeps what the trials name; what it had taken before is made again.
    with work.ctx.db.read() as session:
        known = {number for number, key in keys.items() if usable(session.get(Candidate, key), work.ctx.blobs)}
    with work.ctx.db.transaction() as session:
        work.ctx.lease.check(session)
        for trial in _trials(session, work.search.id, rung):
            if trial.number not in known and _wants_job(work, session, trial):
                trial.job_id = _submit(work, session, trial, space[trial.number].name, chains[trial.number]).id


def _wants_job(work: _Work, session: Session, trial: Trial) -> bool:
    """Whether it has none yet, or a search that somebody tries again takes what has failed with it."""
    if trial.job_id is None:
        return True
    state = session.get_one(Job, trial.job_id).state
    return work.ctx.attempt == 1 and state in (JobState.FAILED, JobState.CANCELED)


def _submit(work: _Work, session: Session, trial: Trial, name: str, chain: Chain) -> Job:
    return jobs.submit(
        session,
        CANDIDATE,
        {"search_id": work.search.id, "key": trial.key, "name": name, "chain": chain.as_json()},
        queue=QUEUE,
        now=utc_now(),
        dedupe_key=f"{work.search.id}:{trial.number}:{trial.rung}:{work.ctx.lease.epoch}",
        parent_id=work.ctx.job_id,
        max_attempts=ATTEMPTS,
    )


def _trials(session: Session, search_id: str, rung: int) -> Sequence[Trial]:
    query = select(Trial).where(Trial.search_id == search_id, Trial.rung == rung).order_by(Trial.number)
    return session.scalars(query).all()


@dataclass(frozen=True, kw_only=True)
class _Standing:
    trial: Trial
    candidate: Candidate | None
    job: Job | None

    @property
    def free(self) -> bool:
        return self.job is not None and self.job.state == JobState.QUEUED

    @property
    def settled(self) -> bool:
        """Its job has ended, well or not; without one it was there."""
        return self.job is None or self.job.state in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)

    def tried(self, entry: Entry, share: float) -> Tried:
        made = self.candidate if self.job is None or self.job.state == JobState.SUCCEEDED else None
        error = made.error if made is not None else self.job.error if self.job is not None else None
        return Tried(
            entry=entry,
            key=self.trial.key,
            share=share if entry.trains else 1.0,
            cached=self.job is None,
            digest=made.digest if made is not None else None,
            size=made.size if made is not None else None,
            metrics=made.metrics if made is not None else None,
            error=error,
        )


def _look(work: _Work, rung: int) -> list[_Standing]:
    with work.ctx.db.read() as session:
        query = (
            select(Trial, Candidate, Job)
            .outerjoin(Candidate, Candidate.key == Trial.key)
            .outerjoin(Job, Job.id == Trial.job_id)
            .where(Trial.search_id == work.search.id, Trial.rung == rung)
            .order_by(Trial.number)
        )
        rows = session.execute(query).all()
    return [_Standing(trial=trial, candidate=candidate, job=job) for trial, candidate, job in rows]


def _done_before(work: _Work, rung: int) -> int:
    with work.ctx.db.read() as session:
        query = select(Trial.number).where(Trial.search_id == work.search.id, Trial.rung < rung)
        return len(session.scalars(query).all())
