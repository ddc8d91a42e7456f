"""The outbox: what is submitted is rung once it is committed, in the end and in order, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from engines import Bench

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.jobs import service
from fogline_server.jobs.runner import Outcome
from fogline_shared.errors import Unavailable

MakeBench = Callable[[], Bench]


@pytest.fixture
def bench(database: Database, blobs: BlobStore) -> MakeBench:
    return lambda: Bench(database, blobs, lambda _: Outcome())


def test_the_same_dedupe_key_is_the_same_job_even_when_submitted_at_once(bench: MakeBench) -> None:
    b = bench()
    barrier = threading.Barrier(4)

    def submit(_n: int) -> str:
        barrier.wait()
        return b.submit(dedupe_key="nightly/2026-01-01")

    with ThreadPoolExecutor(4) as pool:
        ids = set(pool.map(submit, range(4)))
    assert len(ids) == 1
    assert b.engine.dispatch() == 1


def test_a_submission_that_is_rolled_back_is_never_rung(bench: MakeBench) -> None:
    b = bench()
    with b.db.transaction() as session:
        service.submit(session, "work", {}, queue="compute", now=b.clock.now)
        session.rollback()
    assert b.engine.dispatch() == 0


def test_without_a_broker_rings_wait_in_the_outbox(bench: MakeBench) -> None:
    b = bench()
    first, second = b.submit(), b.submit()
    answers = [None, Unavailable("broker_unavailable", "no Redis")]

    def ring(job_id: str, _queue: str, _priority: int) -> None:
        if answers and (error := answers.pop(0)) is not None:
            raise error
        b.rings.append(job_id)

    b.engine.ring = ring
    with pytest.raises(Unavailable):
        b.engine.dispatch()
    assert b.engine.dispatch() == 1
    assert b.rings == [first, second]


def test_urgent_jobs_are_rung_first(bench: MakeBench) -> None:
    b = bench()
    low, high = b.submit(priority=1), b.submit(priority=9)
    b.engine.dispatch()
    assert b.rings == [high, low]


def test_a_lost_ring_is_repeated_with_growing_pauses(bench: MakeBench) -> None:
    b = bench()
    job_id = b.submit()
    b.engine.dispatch()
    for pause in (31, 61, 121):
        b.clock.advance(pause - 2)
        assert (b.engine.reconcile(), b.engine.dispatch()) == (0, 0)
        b.clock.advance(2)
        assert (b.engine.reconcile(), b.engine.dispatch()) == (1, 1)
    assert b.rings == [job_id] * 4
