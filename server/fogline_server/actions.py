"""What a schedule may start, by name. It stands above the features, because schedules know none of those they start.

Each action reads its spec the same way when a schedule is stored and when it fires.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from fogline_server.batch.model import BatchSpec
from fogline_server.batch.places import Places
from fogline_server.batch.service import submit_batch
from fogline_server.registry.service import get_release
from fogline_server.rollouts import service as rollouts
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.schedules.service import Action
from fogline_server.training.service import create_run
from fogline_server.training.spec import RunSpec
from fogline_shared.eligibility import Eligibility
from fogline_shared.errors import InvalidInput
from fogline_shared.recipe import load_recipe

T = TypeVar("T")


def start_run(session: Session, spec: Mapping[str, Any], now: datetime, actor: str) -> str:
    """``spec`` is a RunSpec's JSON."""
    return create_run(session, _run(spec), now=now, actor=actor).id


def start_rollout(session: Session, spec: Mapping[str, Any], now: datetime, actor: str) -> str:
    """``{"release_id": id, name or alias, "plan": a RolloutPlan's JSON}``: created and started.

    An alias is followed when the schedule fires: "each night, roll out the champion".
    """
    release_id, plan = _rollout(spec)
    release = get_release(session, release_id)
    rollout = rollouts.create_rollout(session, release.id, plan, now=now, actor=actor)
    rollouts.start(session, rollout.id, now=now, actor=actor)
    return rollout.id


def start_job(session: Session, spec: Mapping[str, Any], now: datetime, actor: str, *, places: Places) -> str:
    """``{"kind": "batch", …a BatchSpec's JSON}``: the one kind of job that people submit by themselves."""
    return submit_batch(session, _batch(spec, places), places=places, now=now, actor=actor).id


def actions(places: Places) -> Mapping[str, Action]:
    """Every action by its name; ``places`` bound what a batch job may read and write."""
    return {
        "run": Action(check=_run, start=start_run),
        "rollout": Action(check=_rollout, start=start_rollout),
        "job": Action(check=partial(_batch, places=places), start=partial(start_job, places=places)),
    }


def _run(spec: Mapping[str, Any]) -> RunSpec:
    _only(spec, *(f.name for f in fields(RunSpec)))
    run = _typed(_RUN, spec)
    # The typed reading passes over conditions that it does not know.
    Eligibility.from_json(spec.get("eligibility", {}))
    run.resolved(load_recipe(run.recipe))
    return run


def _rollout(spec: Mapping[str, Any]) -> tuple[str, RolloutPlan]:
    _only(spec, "release_id", "plan")
    plan = spec.get("plan", {})
    if not isinstance(plan, Mapping):
        raise InvalidInput("invalid_schedule", "plan: an object", field="plan")
    return _text(spec, "release_id"), RolloutPlan.from_json(plan)


def _batch(spec: Mapping[str, Any], places: Places) -> BatchSpec:
    _only(spec, "kind", *(f.name for f in fields(BatchSpec)))
    if spec.get("kind", "batch") != "batch":
        raise InvalidInput("invalid_schedule", "kind: only batch jobs can be scheduled", field="kind")
    batch = _typed(_BATCH, {name: value for name, value in spec.items() if name != "kind"})
    _text(spec, "release_id")
    for name in (batch.input, batch.output):
        places.named(name)
    return batch


_RUN, _BATCH = TypeAdapter(RunSpec), TypeAdapter(BatchSpec)


def _typed(form: TypeAdapter[T], spec: Mapping[str, Any]) -> T:
    """The value; raises InvalidInput ``invalid_schedule`` for the first field that is missing or has a wrong type."""
    try:
        return form.validate_json(json.dumps(spec), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidInput("invalid_schedule", f"{field}: {first['msg']}", field=field) from error


def _only(spec: Mapping[str, Any], *names: str) -> None:
    unknown = sorted(set(spec) - set(names))
    if unknown:
        raise InvalidInput("invalid_schedule", f"{', '.join(unknown)}: not part of this action", field=unknown[0])


def _text(spec: Mapping[str, Any], name: str) -> str:
    value = spec.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInput("invalid_schedule", f"{name}: text", field=name)
    return value
