"""Alembic's hook. ``fogline_server.schema`` hands over the connection and the metadata; nothing is read from a file."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import JSON

from fogline_server.db.base import UtcDateTime


def render_item(kind: str, item: Any, _autogen_context: Any) -> str | Literal[False]:
    """Write column types as they are in the database, so that a revision does not change when our code does."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, JSON):
        return 'sa.JSON().with_variant(postgresql.JSONB(), "postgresql")'
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=context.config.attributes["metadata"],
    render_item=render_item,
    # SQLite cannot alter most things in place.
    render_as_batch=True,
)
# The caller has begun the transaction: a migration happens whole or not at all.
context.run_migrations()
