"""What the rows of a run with an ensemble say."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.training.ensemble.report import comparison
from fogline_server.training.tables import Round


def compared(session: Session, run_id: str) -> dict[str, Any]:
    """:func:`~fogline_server.training.ensemble.report.comparison` of the run's last round that made a model."""
    made = select(Round.metrics).where(Round.run_id == run_id, Round.params_out.is_not(None))
    return comparison(session.scalars(made.order_by(Round.number.desc()).limit(1)).one_or_none() or {})
