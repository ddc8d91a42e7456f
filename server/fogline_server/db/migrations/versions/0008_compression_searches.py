"""compression searches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "compression_candidates",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("chain", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("metrics", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("error", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_compression_candidates")),
    )
    with op.batch_alter_table("compression_candidates", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_compression_candidates_digest"), ["digest"], unique=False)

    op.create_table(
        "compression_searches",
        sa.Column("id", sa.String(length=60), nullable=False),
        sa.Column("release_id", sa.String(length=60), nullable=False),
        sa.Column("job_id", sa.String(length=60), nullable=False),
        sa.Column("spec", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=False),
        sa.Column("result", sa.JSON().with_variant(postgresql.JSONB(), "postgresql"), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_compression_searches_job_id_jobs")),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name=op.f("fk_compression_searches_release_id_releases")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_compression_searches")),
    )
    op.create_table(
        "compression_trials",
        sa.Column("search_id", sa.String(length=60), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("rung", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=60), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_compression_trials_job_id_jobs")),
        sa.ForeignKeyConstraint(
            ["search_id"],
            ["compression_searches.id"],
            name=op.f("fk_compression_trials_search_id_compression_searches"),
        ),
        sa.PrimaryKeyConstraint("search_id", "number", "rung", name=op.f("pk_compression_trials")),
    )
    with op.batch_alter_table("compression_trials", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_compression_trials_key"), ["key"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("compression_trials", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_compression_trials_key"))

    op.drop_table("compression_trials")
    op.drop_table("compression_searches")
    with op.batch_alter_table("compression_candidates", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_compression_candidates_digest"))

    op.drop_table("compression_candidates")
