from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def test_many_connections_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    for number in range(20):
        databases = [Database(f"sqlite:///{tmp_path / f'{number}.db'}") for _ in range(6)]
        with ThreadPoolExecutor(len(databases)) as pool:
            list(pool.map(Database.ping, databases))
        for db in databases:
            db.dispose()
