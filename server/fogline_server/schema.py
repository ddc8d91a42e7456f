"""The whole schema: every feature's tables in one metadata, created or migrated.

It stands above the features because it knows them all; :mod:`fogline_server.db` knows none.
"""

from __future__ import annotations

import importlib

from fogline_server.db import events
from fogline_server.db.base import Base
from fogline_server.db.database import Database

FEATURES_WITH_TABLES = (
    "access",
    "batch",
    "devices",
    "jobs",
    "registry",
    "rollouts",
    "schedules",
    "telemetry",
    "training",
)
for _feature in FEATURES_WITH_TABLES:
    importlib.import_module(f"fogline_server.{_feature}.tables")

METADATA = Base.metadata
assert events.Event.metadata is METADATA


def create_all(db: Database) -> None:
    """Create every table at once, without migrations: for tests and throw-away databases."""
    METADATA.create_all(db.engine)
