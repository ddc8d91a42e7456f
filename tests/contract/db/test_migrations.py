from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from threading import Timer

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import MetaData, Table

from fogline_server.db.database import Database
from fogline_server.schema import METADATA, _config, migrate

NOW = datetime(2026, 1, 1, tzinfo=UTC)
# A device that has answered a task, as a program before attempts wrote it.
OLDER = {
    "devices": {
        **dict.fromkeys(("id", "name", "device_class", "agent_version", "boot_id", "active_digest"), "d"),
        **dict.fromkeys(("node_id", "report_seq", "active_generation"), 1),
        "state": "ACTIVE",
        "tags": [],
        "attributes": {},
        "recipes": [],
        "created_at": NOW,
    },
    "runs": {
        "id": "r",
        "recipe": "tiny",
        "size": "student",
        "state": "RUNNING",
        "spec": {},
        "rounds_total": 1,
        "rounds_done": 0,
        "created_at": NOW,
    },
    "tasks": {
        "id": "t",
        "run_id": "r",
        "round": 1,
        "kind": "train",
        "device_id": "d",
        "recipe": "tiny",
        "records": {},
        "blobs": [],
        "message_type": "train",
        "group_id": "1",
        "node_id": 1,
        "max_reply_bytes": 1,
        "deadline": NOW,
        "closed": True,
        "created_at": NOW,
    },
    "updates": {
        "task_id": "t",
        "digest": "abc",
        "size": 1,
        "records": {},
        "verdict": "ACCEPTED",
        "code": "",
        "reason": "",
        "duplicates": 0,
        "received_at": NOW,
    },
}


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


def test_an_answered_task_of_an_older_program_outlives_the_tables_change(empty_url: str) -> None:
    db = Database(empty_url)
    with db.engine.begin() as connection:
        command.upgrade(_config(connection), "0002")
        for name, values in OLDER.items():
            table = Table(name, MetaData(), autoload_with=connection)
            connection.execute(table.insert(), values)
    migrate(db)
    with db.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT task_id, digest FROM updates").all() == [("t", "abc")]
        assert connection.exec_driver_sql("SELECT id, attempt FROM tasks").all() == [("t", 1)]
    db.dispose()
