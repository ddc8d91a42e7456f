"""The job engine's promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from engines import Bench
from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.db import events
from fogline_server.db.database import Database
from fogline_server.jobs import service
from fogline_server.jobs.lease import SqlLease, claim
from fogline_server.jobs.runner import JobContext, LeaseLost, Outcome
from fogline_shared.errors import Conflict, FoglineError, InvalidInput, NotFound, Unavailable
from fogline_shared.states import JobState

MakeBench = Callable[..., Bench]


def nothing(_context: JobContext) -> Outcome:
    return Outcome()


@pytest.fixture
def bench(database: Database, blobs: BlobStore) -> MakeBench:
    return lambda run=nothing, **kind: Bench(database, blobs, run, **kind)


def mark(session: Session, what: str) -> None:
    events.record(session, what, "test", "effect")


def effects(bench: Bench, what: str) -> int:
    with bench.db.read() as session:
        return sum(event.kind == what for event in events.events_after(session, 0))


def test_a_job_runs_and_its_effect_and_its_end_are_one_commit(bench: MakeBench) -> None:
    b = bench(lambda _: Outcome(result={"rows": 3}, commit=lambda session: mark(session, "effect")))
    job_id = b.submit()
    assert b.engine.execute(job_id) == JobState.SUCCEEDED
    job = b.job(job_id)
    assert (job.state, job.result, job.attempts, job.lease_until) == ("SUCCEEDED", {"rows": 3}, 1, None)
    assert effects(b, "effect") == 1


def test_a_second_ring_finds_nothing_to_do(bench: MakeBench) -> None:
    b = bench()
    job_id = b.submit()
    assert b.engine.execute(job_id) == JobState.SUCCEEDED
    assert b.engine.execute(job_id) is None
    assert b.engine.execute("job_unheard_of") is None


def test_many_workers_claim_each_job_exactly_once(bench: MakeBench) -> None:
    ran: Counter[str] = Counter()
    b = bench(lambda context: ran.update([context.job_id]) or Outcome(commit=lambda s: mark(s, "effect")))
    jobs = [b.submit() for _ in range(10)]
    with ThreadPoolExecutor(8) as pool:
        states = list(pool.map(b.engine.execute, jobs * 4))
    assert sorted(ran.values()) == [1] * len(jobs)
    assert states.count(JobState.SUCCEEDED) == len(jobs)
    assert effects(b, "effect") == len(jobs)


def test_a_worker_that_was_believed_dead_writes_nothing(bench: MakeBench) -> None:
    b = bench()
    job_id = b.submit()

    def slow(context: JobContext) -> Outcome:
        if context.attempt == 1:
            b.clock.advance(11)
            assert b.engine.reconcile() == 1
            assert b.engine.execute(job_id) == JobState.SUCCEEDED
        return Outcome(commit=lambda session: mark(session, f"attempt {context.attempt}"))

    b.engine.kinds = bench(slow).engine.kinds
    assert b.engine.execute(job_id) is None
    assert (effects(b, "attempt 1"), effects(b, "attempt 2")) == (0, 1)
    assert b.job(job_id).epoch == 2


def test_the_fence_holds_for_checks_and_progress_of_an_old_epoch(bench: MakeBench) -> None:
    b = bench()
    job_id = b.submit()
    with b.db.transaction() as session:
        job = claim(session, job_id, owner="old", lease_s=10, now=b.clock.now)
    old = SqlLease(b.db, job_id=job_id, epoch=job.epoch, lease_s=10, clock=b.clock)
    old.progress(1, 2)
    with b.db.transaction() as session:
        old.check(session)
    b.clock.advance(11)
    b.engine.reconcile()
    with b.db.transaction() as session, pytest.raises(LeaseLost):
        old.check(session)
    with pytest.raises(LeaseLost):
        old.progress(2, 2)


def test_a_silent_worker_loses_its_job_and_a_living_one_keeps_it(bench: MakeBench) -> None:
    b = bench()
    silent, alive = b.submit(), b.submit()
    with b.db.transaction() as session:
        claim(session, silent, owner="w1", lease_s=10, now=b.clock.now)
        claim(session, alive, owner="w2", lease_s=10, now=b.clock.now)
    b.clock.advance(9)
    assert b.engine.reconcile() == 0
    SqlLease(b.db, job_id=alive, epoch=1, lease_s=10, clock=b.clock).progress(1, 2)
    b.clock.advance(2)
    assert b.engine.reconcile() == 1
    assert (b.job(silent).state, b.job(alive).state) == ("QUEUED", "RUNNING")
    b.engine.dispatch()
    assert silent in b.rings


def test_a_job_that_kills_its_workers_is_given_up_and_its_feature_told(bench: MakeBench) -> None:
    told: list[str] = []
    b = bench(on_failure=lambda session, job_id, error: told.append(error.code))
    job_id = b.submit(max_attempts=2)
    for _ in range(2):
        with b.db.transaction() as session:
            assert claim(session, job_id, owner="doomed", lease_s=10, now=b.clock.now) is not None
        b.clock.advance(11)
        b.engine.reconcile()
    job = b.job(job_id)
    assert (job.state, job.error["code"], job.attempts, told) == (
        "FAILED",
        "attempts_exhausted",
        2,
        ["attempts_exhausted"],
    )


def test_a_crash_is_tried_again_after_a_growing_pause_until_attempts_end(bench: MakeBench) -> None:
    def crash(_context: JobContext) -> Outcome:
        raise RuntimeError("boom")

    b = bench(crash)
    job_id = b.submit()
    b.engine.dispatch()
    for pause in (1, 2):
        assert b.engine.execute(job_id) == JobState.QUEUED
        assert b.engine.dispatch() == 0
        b.clock.advance(pause)
        assert b.engine.dispatch() == 1
    assert b.engine.execute(job_id) == JobState.FAILED
    assert b.job(job_id).error == {"code": "job_crashed", "message": "RuntimeError: boom"}
    assert effects(b, "job.attempt_failed") == 2
    assert effects(b, "job.failed") == 1


def test_an_unavailable_part_is_tried_again_and_an_invalid_input_is_not(bench: MakeBench) -> None:
    errors: list[FoglineError] = [Unavailable("store_away", "later"), InvalidInput("bad_spec", "never", field="rows")]

    def fail(_context: JobContext) -> Outcome:
        raise errors.pop(0)

    b = bench(fail)
    job_id = b.submit()
    assert b.engine.execute(job_id) == JobState.QUEUED
    assert b.engine.execute(job_id) == JobState.FAILED
    assert b.job(job_id).error == {"code": "bad_spec", "message": "never", "detail": {"field": "rows"}}


def test_an_effect_that_cannot_be_written_leaves_no_half_of_itself(bench: MakeBench) -> None:
    def commit(session: Session) -> None:
        mark(session, "effect")
        session.flush()
        raise Conflict("taken", "somebody was faster")

    b = bench(lambda _: Outcome(commit=commit))
    job_id = b.submit()
    assert b.engine.execute(job_id) == JobState.FAILED
    assert effects(b, "effect") == 0
    assert b.job(job_id).error["code"] == "taken"


def test_a_job_of_a_kind_this_worker_does_not_know_fails_with_its_name(bench: MakeBench) -> None:
    b = bench()
    with b.db.transaction() as session:
        job_id = service.submit(session, "sing", {}, queue="compute", now=b.clock.now).id
    assert b.engine.execute(job_id) == JobState.FAILED
    assert b.job(job_id).error["code"] == "unknown_job_kind"


def test_a_queued_job_is_canceled_by_the_next_pass_and_no_longer_claimed(bench: MakeBench) -> None:
    told: list[str] = []
    b = bench(on_failure=lambda session, job_id, error: told.append(error.code))
    job_id = b.submit()
    b.cancel(job_id)
    b.cancel(job_id)
    assert b.engine.execute(job_id) is None
    assert b.engine.reconcile() == 1
    assert (b.job(job_id).state, told) == ("CANCELED", ["job_canceled"])
    with pytest.raises(Conflict, match="illegal_transition"):
        b.cancel(job_id)


def test_a_running_job_is_canceled_at_its_next_progress_with_its_children(bench: MakeBench) -> None:
    started, go = threading.Event(), threading.Event()

    def run(context: JobContext) -> Outcome:
        started.set()
        go.wait(10)
        context.lease.progress(2, 2)
        return Outcome(commit=lambda session: mark(session, "effect"))

    b = bench(run)
    parent = b.submit()
    child = b.submit(parent_id=parent)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(b.engine.execute, parent)
        assert started.wait(10)
        b.cancel(parent)
        go.set()
        assert running.result() == JobState.CANCELED
    b.engine.reconcile()
    assert (b.job(child).state, effects(b, "effect")) == ("CANCELED", 0)


def test_progress_is_stored_and_never_costs_a_write_each(bench: MakeBench) -> None:
    seen: list[tuple[int, int, str]] = []

    def run(context: JobContext) -> Outcome:
        for step in range(1000):
            context.lease.progress(step, 1000, f"step {step}")
        context.lease.progress(1000, 1000, "done")
        job = b.job(context.job_id)
        seen.append((job.done, job.total, job.message))
        return Outcome()

    b = bench(run)
    assert b.engine.execute(b.submit()) == JobState.SUCCEEDED
    assert seen == [(1000, 1000, "done")]


def test_one_job_whose_feature_refuses_does_not_hold_up_the_others(bench: MakeBench) -> None:
    def refuse(_session: Session, job_id: str, _error: FoglineError) -> None:
        if job_id == bad:
            raise RuntimeError("hook is broken")

    b = bench(on_failure=refuse)
    bad, good = b.submit(), b.submit()
    b.cancel(bad)
    b.cancel(good)
    with pytest.raises(RuntimeError, match="hook is broken"):
        b.engine.reconcile()
    assert (b.job(bad).state, b.job(good).state) == ("QUEUED", "CANCELED")


def test_two_replicas_reconciling_at_once_move_a_job_once(bench: MakeBench) -> None:
    b = bench()
    jobs = [b.submit() for _ in range(8)]
    with b.db.transaction() as session:
        for job_id in jobs:
            claim(session, job_id, owner="gone", lease_s=10, now=b.clock.now)
    b.engine.dispatch()
    b.clock.advance(11)
    with ThreadPoolExecutor(2) as pool:
        moved = sum(pool.map(lambda _: b.engine.reconcile(), range(2)))
    assert moved == len(jobs)
    b.rings.clear()
    b.engine.dispatch()
    assert sorted(b.rings) == sorted(jobs)


def test_a_failed_job_is_retried_with_all_its_attempts_and_others_are_not(bench: MakeBench) -> None:
    outcomes = [InvalidInput("bad", "once"), None]

    def run(_context: JobContext) -> Outcome:
        if (error := outcomes.pop(0)) is not None:
            raise error
        return Outcome()

    b = bench(run)
    job_id = b.submit()
    assert b.engine.execute(job_id) == JobState.FAILED
    with b.db.transaction() as session:
        job = service.retry(session, job_id, kinds=b.engine.kinds, now=b.clock.now)
        assert (job.state, job.attempts, job.error) == ("QUEUED", 0, None)
    assert b.engine.execute(job_id) == JobState.SUCCEEDED
    with b.db.transaction() as session, pytest.raises(Conflict, match="illegal_transition"):
        service.retry(session, job_id, kinds=b.engine.kinds, now=b.clock.now)


def test_a_failure_that_ended_more_than_the_job_is_not_retried(bench: MakeBench) -> None:
    def run(_context: JobContext) -> Outcome:
        raise InvalidInput("bad", "once")

    b = bench(run)
    job_id = b.submit()
    b.engine.execute(job_id)
    kinds = {name: replace(kind, instead_of_retry="start another run") for name, kind in b.engine.kinds.items()}
    with b.db.transaction() as session, pytest.raises(Conflict, match=r"retry_cannot_help: .*start another run"):
        service.retry(session, job_id, kinds=kinds, now=b.clock.now)
    with b.db.read() as session:
        assert service.get_job(session, job_id).state == JobState.FAILED


def test_jobs_are_listed_newest_first_in_pages(bench: MakeBench) -> None:
    b = bench()
    ids = sorted((b.submit() for _ in range(5)), reverse=True)
    with b.db.read() as session:
        first = service.list_jobs(session, limit=3)
        rest = service.list_jobs(session, after=first[-1].id, limit=3)
        assert [job.id for job in [*first, *rest]] == ids
        assert service.list_jobs(session, state=JobState.FAILED) == []
        with pytest.raises(NotFound, match="job_not_found"):
            service.get_job(session, "job_none")
