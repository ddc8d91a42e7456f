"""Runs and releases refer to each other: a run may start from a release's weights, and a released run stays as it is."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.distillation.choice import TEACHER
from fogline_server.registry.service import ready_release
from fogline_server.registry.students import ChosenStudent, chosen_student
from fogline_server.registry.tables import Release
from fogline_server.training import lifecycle
from fogline_server.training.service import create_run
from fogline_server.training.spec import RunSpec
from fogline_server.training.tables import Run
from fogline_shared.errors import Conflict, InvalidInput
from fogline_shared.states import ReleaseState


def create_run_from(session: Session, spec: RunSpec, reference: str, *, now: datetime, actor: str) -> Run:
    """A run that starts at the float parameters behind a release (id, name or alias), not at a device's int8 ones.

    They come with the standardisation they were trained with, so the run gathers no statistics. Raises what ``create_run``
    raises; NotFound ``release_not_found``; Conflict ``release_not_ready``, ``release_without_run``; InvalidInput
    ``run_of_other_recipe``, ``invalid_run``.
    """
    for field in ("init_from", "distil_from"):
        if getattr(spec, field) is not None:
            text = f"init_from_release and {field} both say where to start or how inputs are standardised: give one"
            raise InvalidInput("invalid_run", text, field="init_from_release")
    release = ready_release(session, reference)
    if release.recipe != spec.recipe:
        message = f"release {release.name!r} is of recipe {release.recipe!r}, not {spec.recipe!r}"
        raise InvalidInput("run_of_other_recipe", message)
    source = _source(session, release, spec.size)
    run = create_run(session, replace(spec, init_from=source.params_digest), now=now, actor=actor)
    run.statistics = dict(source.statistics)
    facts = {"release": release.id, "release_name": release.name, "source": source.run_id}
    events.record(session, "run.initialised", "run", run.id, actor=actor, **facts)
    return run


def _source(session: Session, release: Release, size: str) -> ChosenStudent:
    """The float parameters that were released in that size."""
    if size == "student":
        return chosen_student(session, release)
    run = session.get(Run, release.lineage.get("runs", {}).get(TEACHER, "")) if size == TEACHER else None
    if run is None or run.params_digest is None:
        text = f"release {release.name!r} has no float parameters of size {size!r}: no run of ours trained it"
        raise Conflict("release_without_run", text)
    return ChosenStudent(run_id=run.id, params_digest=run.params_digest, statistics=run.statistics or {})


def extend_run(session: Session, run_id: str, rounds: int, *, now: datetime, actor: str) -> Run:
    """As :func:`fogline_server.training.lifecycle.extend_run`; Conflict ``run_in_use`` also for a run that was released."""
    run = lifecycle.extend_run(session, run_id, rounds, now=now, actor=actor)
    others = session.execute(select(Release.name, Release.lineage).where(Release.state != ReleaseState.FAILED))
    for name, lineage in others:
        if run_id in lineage.get("runs", {}).values():
            text = f"run {run_id} is behind release {name!r}: start another run from it (init_from_release)"
            raise Conflict("run_in_use", text)
    return run
