"""The float student behind a release: the parameters that its choice fell on, whoever trained or taught them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from fogline_server.distillation.choice import CONTROL, DISTILLED
from fogline_server.registry.tables import Release
from fogline_server.training.tables import Run
from fogline_shared.errors import Conflict


@dataclass(frozen=True, kw_only=True)
class ChosenStudent:
    """``params_digest``: a safetensors blob; ``statistics``: the standardisation it was trained with, as JSON.

    ``run_id``: the run that trained it, or that a student taught at the cloud began from.
    """

    run_id: str
    params_digest: str
    statistics: Mapping[str, Any]


def chosen_student(session: Session, release: Release) -> ChosenStudent:
    """Raises Conflict ``release_without_run`` for an imported release, which is an ONNX file and no parameters."""
    runs = release.lineage.get("runs", {})
    role = release.report.get("choice", {}).get("chosen", CONTROL)
    taught = role == DISTILLED and "taught" in release.lineage
    # A student taught at the cloud began as the student's run left it, and has its standardisation.
    run = session.get(Run, runs.get(CONTROL if taught else role, ""))
    digest = release.lineage["taught"]["digest"] if taught else run.params_digest if run is not None else None
    if run is None or digest is None:
        text = f"release {release.name!r} has no float parameters: no run of ours trained it"
        raise Conflict("release_without_run", text, release=release.name)
    return ChosenStudent(run_id=run.id, params_digest=digest, statistics=run.statistics or {})
