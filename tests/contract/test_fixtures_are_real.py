from __future__ import annotations

from sqlalchemy import text

from fogline_server.db.database import Database
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.schema import METADATA


def test_each_test_gets_every_table_empty(database: Database) -> None:
    with database.read() as session:
        for table in METADATA.sorted_tables:
            assert session.execute(table.select()).all() == []


def test_the_doorbell_rings_through_a_real_redis(doorbell: Doorbell) -> None:
    waiter = doorbell.waiter("fogline:test")
    waiter.wait(0.05)
    doorbell.ring("fogline:test")
    waiter.wait(5)
    waiter.close()


def test_postgresql_is_postgresql(postgres_url: str) -> None:
    db = Database(postgres_url)
    with db.read() as session:
        assert "PostgreSQL 18" in session.scalar(text("select version()"))
    db.dispose()
