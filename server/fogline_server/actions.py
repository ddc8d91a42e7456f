"""What a schedule may start, by name. It stands above the features, because schedules know none of those they start.

Each action is ``(session, spec, now, actor) → id`` and raises InvalidInput for a spec that can never be right.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from fogline_server.batch.model import BatchSpec
from fogline_server.batch.places import Places
from fogline_server.batch.service import submit_batch
from fogline_server.registry.service import get_release
from fogline_server.rollouts import service as rollouts
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.schedules.tick import Action
from fogline_server.training.service import create_run
from fogline_server.training.spec import RunSpec
from fogline_shared.errors import InvalidInput


def start_run(session: Session, spec: Mapping[str, Any], now: datetime, actor: str) -> str:
    """``spec`` is a RunSpec's JSON."""
    return create_run(session, RunSpec.from_json(spec), now=now, actor=actor).id


def start_rollout(session: Session, spec: Mapping[str, Any], now: datetime, actor: str) -> str:
    """``{"release_id": id, name or alias, "plan": a RolloutPlan's JSON}``: created and started.

    An alias is followed when the schedule fires: "each night, roll out the champion".
    """
    _only(spec, "release_id", "plan")
    release = get_release(session, _text(spec, "release_id"))
    plan = spec.get("plan", {})
    if not isinstance(plan, Mapping):
        raise InvalidInput("invalid_schedule", "plan: an object", field="plan")
    rollout = rollouts.create_rollout(session, release.id, RolloutPlan.from_json(plan), now=now, actor=actor)
    rollouts.start(session, rollout.id, now=now, actor=actor)
    return rollout.id


def start_job(session: Session, spec: Mapping[str, Any], now: datetime, actor: str, *, places: Places) -> str:
    """``{"kind": "batch", …a BatchSpec's JSON}``: the one kind of job that people submit by themselves."""
    if spec.get("kind", "batch") != "batch":
        raise InvalidInput("invalid_schedule", "kind: only batch jobs can be scheduled", field="kind")
    for name in ("release_id", "input", "output"):
        _text(spec, name)
    return submit_batch(session, BatchSpec.from_json(spec), places=places, now=now, actor=actor).id


def actions(places: Places) -> Mapping[str, Action]:
    """Every action by its name; ``places`` bound what a batch job may read and write."""
    return {"run": start_run, "rollout": start_rollout, "job": partial(start_job, places=places)}


def _only(spec: Mapping[str, Any], *names: str) -> None:
    unknown = sorted(set(spec) - set(names))
    if unknown:
        raise InvalidInput("invalid_schedule", f"{', '.join(unknown)}: not part of this action", field=unknown[0])


def _text(spec: Mapping[str, Any], name: str) -> str:
    value = spec.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInput("invalid_schedule", f"{name}: text", field=name)
    return value
