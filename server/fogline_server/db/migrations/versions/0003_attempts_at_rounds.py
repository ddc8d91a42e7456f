"""attempts at rounds, their pace, and why a round is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_OLD, _NEW = "uq_tasks_run_id_round_kind_device_id", "uq_tasks_run_id_round_attempt_kind_device_id"


@contextmanager
def _updates_kept() -> Iterator[None]:
    """SQLite changes a constraint by making the table anew, and does not drop one that another's rows refer to."""
    aside = op.get_bind().dialect.name == "sqlite"
    if aside:
        op.execute("CREATE TABLE updates_aside AS SELECT * FROM updates")
        op.execute("DELETE FROM updates")
    yield
    if aside:
        op.execute("INSERT INTO updates SELECT * FROM updates_aside")
        op.execute("DROP TABLE updates_aside")


def upgrade() -> None:
    with op.batch_alter_table("rounds", schema=None) as batch_op:
        batch_op.add_column(sa.Column("attempts", _JSON, server_default="[]", nullable=False))
        batch_op.add_column(sa.Column("pace", _JSON, nullable=True))
        batch_op.add_column(sa.Column("error", _JSON, nullable=True))
    with _updates_kept(), op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.add_column(sa.Column("attempt", sa.Integer(), server_default="1", nullable=False))
        batch_op.drop_constraint(batch_op.f(_OLD), type_="unique")
        batch_op.create_unique_constraint(batch_op.f(_NEW), ["run_id", "round", "attempt", "kind", "device_id"])


def downgrade() -> None:
    with _updates_kept(), op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.drop_constraint(batch_op.f(_NEW), type_="unique")
        batch_op.create_unique_constraint(batch_op.f(_OLD), ["run_id", "round", "kind", "device_id"])
        batch_op.drop_column("attempt")
    with op.batch_alter_table("rounds", schema=None) as batch_op:
        batch_op.drop_column("error")
        batch_op.drop_column("pace")
        batch_op.drop_column("attempts")
