"""A database that cannot be served is named with a code before anything starts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from parts import free_port
from sqlalchemy import text

from fogline_server.db.database import Database
from fogline_server.schema import migrate
from fogline_shared.errors import Conflict, Unavailable


@pytest.fixture(params=["sqlite", "postgresql"])
def newer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database that a program of the future has migrated."""
    url = f"sqlite:///{tmp_path / 'newer.db'}"
    db = Database(url if request.param == "sqlite" else request.getfixturevalue("empty_postgres_url"))
    migrate(db)
    with db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    yield db
    db.dispose()


def test_a_newer_programs_database_is_refused_and_left_alone(newer: Database) -> None:
    with pytest.raises(Conflict, match="schema_unknown"):
        migrate(newer)
    with newer.engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_database_that_does_not_answer_has_a_code(kind: str, tmp_path: Path) -> None:
    there = f"sqlite:///{tmp_path}/no/such/folder.db"
    db = Database(there if kind == "sqlite" else f"postgresql+psycopg://u:hidden@127.0.0.1:{free_port()}/none")
    for ask in (migrate, Database.ping):
        with pytest.raises(Unavailable, match="database_unavailable") as refused:
            ask(db)
        assert "hidden" not in str(refused.value)
    db.dispose()
