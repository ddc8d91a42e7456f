"""/v1/runs: federated training, its rounds and the devices' updates."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from sqlalchemy.orm import Session

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.schemas import (
    ID_PATTERN,
    Cursor,
    Digest,
    Id,
    JsonObject,
    Limit,
    Page,
    PathId,
    Resource,
    Tags,
    Whole,
)
from fogline_server.api.services import Parts, Services
from fogline_server.db.base import utc_now
from fogline_server.registry.origins import create_run_from, extend_run
from fogline_server.training import lifecycle, service
from fogline_server.training.ensemble.spec import Ensemble
from fogline_server.training.gate import Gate
from fogline_server.training.pacing import Pacing
from fogline_server.training.privacy.local import LocalPrivacy
from fogline_server.training.privacy.spec import Privacy
from fogline_server.training.spec import RunSpec
from fogline_server.training.tables import Run
from fogline_shared.eligibility import Eligibility
from fogline_shared.states import RoundState, RunState, UpdateVerdict

router = APIRouter(prefix="/runs", tags=["runs"], route_class=IdempotentRoute)


class Conditions(schemas.Request):
    """What devices must meet to be asked; by default nothing. The ranges are checked by the run itself."""

    min_battery_percent: float = 0
    charging: bool = False
    unmetered: bool = False
    min_free_memory_mb: Whole = 0
    min_samples: Whole = 0
    consent: bool = False
    min_separation_s: float = 0


class EnsembleChoice(schemas.Request):
    """Which sizes device classes train, and how their ensemble teaches the run's own size; off without ``sizes``."""

    sizes: dict[Id, Id] = Field(max_length=50, default_factory=dict)
    fusion: Id = "mean"
    trim: float = 0.2
    steps: Whole = 200
    batch_size: Whole = 64
    learning_rate: float = 1e-3
    temperature: float = 1.0


class PacingChoice(schemas.Request):
    """How many devices a round asks, and what one that failed comes to; by default all, and the run fails."""

    target: Whole | None = None
    over_selection: float = 0.0
    self_tuning: bool = False
    steering: bool = False
    retries: Whole = 0


class GateChoice(schemas.Request):
    """Which rounds' models are refused, by points of accuracy lost on the recipe's holdout; by default none."""

    max_drop: float | None = None
    patience: Whole = 5


class NewRun(schemas.Request):
    """What to train. The ranges are checked by the run itself; a message names the field and its range."""

    recipe: Id
    size: Id = "student"
    rounds: Whole | None = None
    strategy: Id = "fedavg"
    strategy_options: JsonObject = Field(default_factory=dict)
    plan: Annotated[dict[Id, float], Field(max_length=50, default_factory=dict)]
    seed: Whole = 0
    privacy: JsonObject = Field(default_factory=dict)
    local_privacy: JsonObject = Field(default_factory=dict)
    tags: Tags = Field(default_factory=list)
    exclude_tags: Tags = Field(default_factory=list)
    eligibility: Conditions = Conditions()
    min_devices: Whole = 2
    max_devices: Whole | None = None
    quorum: float = 0.8
    round_deadline_s: float = 300.0
    max_norm_ratio: float = 5.0
    evaluate_every: Whole = 0
    distil_from: Id | None = None
    init_from: Digest | None = None
    init_from_release: Id | None = None
    codec: Id = "none"
    codec_options: JsonObject = Field(default_factory=dict)
    pacing: PacingChoice = PacingChoice()
    gate: GateChoice = GateChoice()
    ensemble: EnsembleChoice = EnsembleChoice()

    def spec(self) -> RunSpec:
        """The validated value; whole numbers among the plan's stay whole."""
        given = self.model_dump(exclude={"init_from_release"})
        given["privacy"] = Privacy.from_json(self.privacy)
        given["local_privacy"] = LocalPrivacy.from_json(self.local_privacy)
        given["plan"] = {name: int(v) if v == int(v) else v for name, v in self.plan.items()}
        given["eligibility"] = Eligibility(**given["eligibility"])
        given["pacing"], given["gate"] = Pacing(**given["pacing"]), Gate(**given["gate"])
        given["ensemble"] = Ensemble(**given["ensemble"])
        return RunSpec(**given)


class Extension(schemas.Request):
    """How many ``rounds`` to add."""

    rounds: Whole


class RunView(Resource):
    id: str
    recipe: str
    size: str
    state: RunState
    spec: dict[str, Any]
    job_id: str | None
    rounds_total: int
    rounds_done: int
    params_digest: str | None
    error: dict[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


class RoundView(Resource):
    """``cohort``: device ids; ``metrics``: what was measured, for curves. Round 0 gathers statistics.

    ``attempts``: cohorts that failed before this one; ``pace``: how many answers this one is for and until when, null: as the
    run says; ``error``: why a round was refused or abandoned.
    """

    number: int
    state: RoundState
    cohort: list[str]
    params_in: str | None
    params_out: str | None
    metrics: dict[str, Any]
    attempts: list[dict[str, Any]]
    pace: dict[str, Any] | None
    error: dict[str, Any] | None
    started_at: datetime
    closed_at: datetime | None


class Rounds(Resource):
    items: list[RoundView]


class UpdateView(Resource):
    """One device's reply to one task, and what became of it. ``verdict`` is null until its round closes.

    ``step``: in an asynchronous run, the round that took the update from the buffer; ``staleness``: how many steps before
    it the device had begun. Both are null elsewhere, and until it is taken.
    """

    task_id: str
    device_id: str
    round: int
    kind: str
    verdict: UpdateVerdict | None
    code: str
    reason: str
    digest: str
    size: int
    duplicates: int
    metrics: dict[str, Any]
    received_at: datetime
    step: int | None
    staleness: int | None


@router.get("")
def list_runs(
    services: Parts,
    recipe: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    state: RunState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[RunView]:
    """Runs, newest first."""
    with services.db.read() as session:
        rows = service.list_runs(session, recipe=recipe, state=state, after=cursor, limit=limit + 1)
        return page_of(rows, limit, cursor=lambda run: run.id, show=RunView.model_validate)


@router.post("", status_code=201, responses=responses(404, 409), dependencies=[IDEMPOTENT])
def create_run(services: Parts, who: Caller, body: NewRun) -> RunView:
    """Start a run as soon as enough devices are online."""
    now, spec = utc_now(), body.spec()
    if body.init_from_release is not None:
        origin = body.init_from_release
        return _change(services, lambda session: create_run_from(session, spec, origin, now=now, actor=who.actor))
    return _change(services, lambda session: service.create_run(session, spec, now=now, actor=who.actor))


@router.get("/{run_id:id}", responses=responses(404))
def get_run(services: Parts, run_id: PathId) -> RunView:
    """One run."""
    with services.db.read() as session:
        return RunView.model_validate(service.get_run(session, run_id))


@router.post("/{run_id:id}:cancel", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def cancel_run(services: Parts, who: Caller, run_id: PathId) -> RunView:
    """Ask for the end of a run; it is CANCELED when its trainer next looks, at once if it has none."""
    return _change(services, lambda session: lifecycle.cancel_run(session, run_id, now=utc_now(), actor=who.actor))


@router.post("/{run_id:id}:pause", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def pause_run(services: Parts, who: Caller, run_id: PathId) -> RunView:
    """Open no further round; the one that is open is finished and counts."""
    return _change(services, lambda session: lifecycle.pause_run(session, run_id, now=utc_now(), actor=who.actor))


@router.post("/{run_id:id}:resume", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def resume_run(services: Parts, who: Caller, run_id: PathId) -> RunView:
    """Go on with a paused run."""
    return _change(services, lambda session: lifecycle.resume_run(session, run_id, now=utc_now(), actor=who.actor))


@router.post("/{run_id:id}:extend", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def add_rounds(services: Parts, who: Caller, run_id: PathId, body: Extension) -> RunView:
    """Add rounds, also to a run that has SUCCEEDED, which then goes on."""
    now = utc_now()
    return _change(services, lambda session: extend_run(session, run_id, body.rounds, now=now, actor=who.actor))


@router.get("/{run_id:id}/rounds", responses=responses(404))
def list_rounds(services: Parts, run_id: PathId) -> Rounds:
    """All rounds so far, in order."""
    with services.db.read() as session:
        return Rounds(items=[RoundView.model_validate(r) for r in service.rounds_of(session, run_id)])


@router.get("/{run_id:id}/updates", responses=responses(404))
def list_updates(
    services: Parts,
    run_id: PathId,
    number: Annotated[int | None, Query(alias="round", ge=0, le=1_000_000)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[UpdateView]:
    """The devices' replies, by task."""
    with services.db.read() as session:
        rows = service.updates_of(session, run_id, round_number=number, after=cursor, limit=limit + 1)
        return page_of(rows, limit, cursor=lambda row: row.task_id, show=UpdateView.model_validate)


def _change(services: Services, use_case: Callable[[Session], Run]) -> RunView:
    with services.db.transaction() as session:
        return RunView.model_validate(use_case(session))
