"""PostgreSQL crashes in the middle of a federated run and comes back: the run goes on where it was, and is whole."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from live_fleet import LiveFleet
from parts import PostgresServer


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def fleet(own_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveFleet]:
    url = own_postgres.url(own_postgres.create())
    fleet = LiveFleet(tmp_path_factory.mktemp("live"), FOGLINE_DATABASE_URL=url)
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.stop()


@pytest.mark.slow
def test_postgresql_crashes_during_a_run(fleet: LiveFleet, own_postgres: PostgresServer) -> None:
    with fleet.watch():
        run = fleet.begin_run()
        fleet.in_the_middle_of(run)
        own_postgres.crash()
        time.sleep(1)  # everybody meets a database that is away
        own_postgres.start_again()
        fleet.finish_run(run)
    fleet.check_run(run)
