"""PostgreSQL crashes under a running job and comes back: the job is done again and has its attempts left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from engines import Bench
from parts import PostgresServer
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database, is_outage
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.schema import create_all
from fogline_shared.states import JobState


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("lease", ["holds", "runs out"])
def test_an_outage_is_no_attempt(own_postgres: PostgresServer, blobs: BlobStore, lease: str) -> None:
    db = Database(own_postgres.url(own_postgres.create()))
    create_all(db)
    lives = []

    def meets_a_crash(context: JobContext) -> Outcome:
        lives.append(context.attempt)
        if len(lives) < 3:
            own_postgres.crash()
            own_postgres.start_again()
            if lease == "runs out":
                # The coordinator finds the database before the worker does.
                bench.clock.advance(60)
                assert bench.engine.reconcile() == 1
            with context.db.transaction() as session:
                session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return Outcome()

    bench = Bench(db, blobs, meets_a_crash)
    job_id = bench.submit(max_attempts=2)
    for _ in range(2):
        assert bench.engine.execute(job_id) == JobState.QUEUED
        assert bench.job(job_id).attempts == 0
        bench.clock.advance(1)
        assert bench.engine.dispatch() >= 1
    assert bench.engine.execute(job_id) == JobState.SUCCEEDED
    assert lives == [1, 1, 1]
    db.dispose()


def test_a_database_that_refuses_is_there(sqlite_database: Database, postgres_url: str) -> None:
    for db in (sqlite_database, Database(postgres_url)):
        with pytest.raises(DBAPIError) as refused, db.read() as session:
            session.execute(text("SELECT nonsense"))
        assert not is_outage(refused.value)
        db.dispose()
