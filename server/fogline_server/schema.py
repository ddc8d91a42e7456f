"""The whole schema: every feature's tables in one metadata, created or migrated.

It stands above the features because it knows them all; :mod:`fogline_server.db` knows none. After a change of tables,
``python -m fogline_server.schema "what changed"`` drafts the migration to review and commit.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from fogline_server.db import events
from fogline_server.db.base import Base
from fogline_server.db.database import Database, unreachable
from fogline_shared.errors import Conflict

FEATURES_WITH_TABLES = (
    "access",
    "batch",
    "devices",
    "jobs",
    "registry",
    "rollouts",
    "schedules",
    "search",
    "telemetry",
    "training",
    "trust",
)
for _feature in FEATURES_WITH_TABLES:
    importlib.import_module(f"fogline_server.{_feature}.tables")

METADATA = Base.metadata
assert events.Event.metadata is METADATA

_MIGRATIONS = Path(__file__).parent / "db" / "migrations"
# Any constant: replicas that start together take turns on it.
_MIGRATION_LOCK = 0x0F06_11AE


def create_all(db: Database) -> None:
    """Create every table at once, without migrations: for tests and throw-away databases."""
    METADATA.create_all(db.engine)


def migrate(db: Database) -> None:
    """Bring a database, empty or older, to this program's schema. Whole or not at all; replicas take turns.

    Raises Unavailable ``database_unavailable``, and Conflict ``schema_unknown`` for a newer program's database.
    """
    try:
        with db.engine.begin() as connection:
            # SQLite's transaction begins with its write lock; there it is the turn.
            if not db.is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
            command.upgrade(_config(connection), "head")
    except OperationalError as error:
        raise unreachable(error) from error
    except CommandError as error:
        raise Conflict("schema_unknown", f"a newer Fogline has migrated this database: {error}") from error


def draft_revision(message: str) -> None:
    """Write a new file under ``db/migrations/versions`` that leads from the last revision to the metadata."""
    with tempfile.TemporaryDirectory() as folder:
        db = Database(f"sqlite:///{Path(folder) / 'draft.db'}")
        migrate(db)
        number = len(list((_MIGRATIONS / "versions").glob("*.py"))) + 1
        with db.engine.begin() as connection:
            command.revision(_config(connection), message, autogenerate=True, rev_id=f"{number:04}")
        db.dispose()


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes.update(connection=connection, metadata=METADATA)
    return config


if __name__ == "__main__":
    draft_revision(sys.argv[1])
