"""budgets of privacy."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "populations",
        sa.Column("name", sa.String(length=80), nullable=False),
        sa.Column("recipe", sa.String(length=80), nullable=False),
        sa.Column("tags", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=False),
        sa.Column("delta", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_populations")),
    )
    op.create_table(
        "privacy_accounts",
        sa.Column("run_id", sa.String(length=60), nullable=False),
        sa.Column("population", sa.String(length=80), nullable=False),
        sa.Column("noise_multiplier", sa.Double(), nullable=False),
        sa.Column("rounds_reserved", sa.Integer(), nullable=False),
        sa.Column("rounds_spent", sa.Integer(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("secret", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["population"], ["populations.name"], name=op.f("fk_privacy_accounts_population_populations")
        ),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_privacy_accounts_run_id_runs")),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_privacy_accounts")),
    )
    with op.batch_alter_table("privacy_accounts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_privacy_accounts_population"), ["population"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("privacy_accounts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_privacy_accounts_population"))

    op.drop_table("privacy_accounts")
    op.drop_table("populations")
