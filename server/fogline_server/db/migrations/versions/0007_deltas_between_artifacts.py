"""deltas between artifacts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "deltas",
        sa.Column("target_digest", sa.String(length=64), nullable=False),
        sa.Column("base_digest", sa.String(length=64), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("target_size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("target_digest", "base_digest", name=op.f("pk_deltas")),
    )
    with op.batch_alter_table("deltas", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_deltas_digest"), ["digest"], unique=False)
    with op.batch_alter_table("assignments", schema=None) as batch_op:
        # What was sent before is not known.
        batch_op.add_column(sa.Column("wire_bytes", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    with op.batch_alter_table("assignments", schema=None) as batch_op:
        batch_op.drop_column("wire_bytes")
    with op.batch_alter_table("deltas", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_deltas_digest"))
    op.drop_table("deltas")
