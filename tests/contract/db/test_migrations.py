from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from fogline_server.db.database import Database
from fogline_server.schema import METADATA, migrate


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return (
        f"sqlite:///{tmp_path / 'empty.db'}"
        if request.param == "sqlite"
        else request.getfixturevalue("empty_postgres_url")
    )


def test_migrations_lead_to_exactly_the_tables_the_program_uses(empty_url: str) -> None:
    db = Database(empty_url)
    migrate(db)
    with db.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []
    db.dispose()


def test_two_replicas_that_start_together_migrate_once(empty_url: str) -> None:
    databases = [Database(empty_url) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(migrate, databases))
    migrate(databases[0])
    for db in databases:
        db.dispose()


def test_a_new_file_that_somebody_writes_to_is_waited_for(tmp_path: Path) -> None:
    """Turning a file to WAL needs it alone, and SQLite does not wait for that by itself."""
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO t VALUES (1)")
    timer = Timer(0.3, other.execute, ["COMMIT"])
    timer.start()
    db = Database(f"sqlite:///{path}")
    db.ping()
    with db.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
    timer.join()
    db.dispose()
    other.close()
