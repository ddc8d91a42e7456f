"""/v1/rollouts: moving devices to a release, in stages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field
from sqlalchemy.orm import Session

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.schemas import Cursor, Id, JsonObject, Limit, Moment, Page, PathId, Resource, Tags, Text, Whole
from fogline_server.api.services import Parts, Services
from fogline_server.db.base import utc_now
from fogline_server.registry.service import get_release
from fogline_server.rollouts import service
from fogline_server.rollouts.plan import RolloutPlan
from fogline_server.rollouts.tables import Rollout
from fogline_shared.states import AssignmentState, RolloutState, StageState, Verdict

router = APIRouter(prefix="/rollouts", tags=["rollouts"], route_class=IdempotentRoute)


class Gate(schemas.Request):
    """A gate by name (error_rate, accuracy, confidence …) and its options."""

    gate: Id
    options: JsonObject = Field(default_factory=dict)


class Plan(schemas.Request):
    """Stages (percent of the fleet, ascending to 100) and limits (seconds). What is absent takes its default."""

    stages: Annotated[list[float], Field(max_length=20)] | None = None
    gates: Annotated[list[Gate], Field(max_length=20)] | None = None
    tags: Tags | None = None
    variant: Id | None = None
    admit_timeout_s: float | None = None
    soak_s: float | None = None
    stage_timeout_s: float | None = None
    success_percent: float | None = None
    max_failures: Whole | None = None
    probation_s: float | None = None
    baseline_s: float | None = None
    rollback_timeout_s: float | None = None
    supersede: bool | None = None

    def plan(self) -> RolloutPlan:
        """The validated value."""
        return RolloutPlan.from_json(self.model_dump(exclude_none=True))


class NewRollout(schemas.Request):
    """``release``: id, name or alias. ``start``: begin now. ``start_at``: begin then. Neither: a draft."""

    release: Id
    plan: Plan = Plan()
    start: bool = False
    start_at: Moment | None = None


class Reason(schemas.Request):
    reason: Text = ""


class RolloutView(Resource):
    id: str
    release_id: str
    variant: str
    artifact_digest: str
    previous_release_id: str | None
    recipe: str
    state: RolloutState
    plan: dict[str, Any]
    start_at: datetime | None
    current_stage: int
    reason: str
    version: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RolloutDetail(RolloutView):
    """``wire_bytes``: what was sent to its devices so far, of the artifact or of deltas that lead to it."""

    wire_bytes: int


class PreviewView(Resource):
    """What the rollout would do now. ``stages``: devices reached by the end of each."""

    variant: str
    artifact_digest: str
    devices: int
    online: int
    stages: list[int]
    previous_release_id: str | None
    in_the_way: list[str]


class EvidenceView(Resource):
    """What a gate saw and said."""

    gate: str
    verdict: Verdict
    reason: str
    observed: float | None = None
    limit: float | None = None
    samples: int = 0
    devices: int = 0


class StageView(Resource):
    number: int
    state: StageState
    percent: float
    evidence: list[EvidenceView]
    started_at: datetime | None
    soak_until: datetime | None
    deadline_at: datetime | None
    finished_at: datetime | None


class Stages(Resource):
    items: list[StageView]


class AssignmentView(Resource):
    id: str
    device_id: str
    stage: int
    state: AssignmentState
    attempt: int
    code: str
    message: str
    wire_bytes: int
    created_at: datetime
    updated_at: datetime


@router.get("")
def list_rollouts(
    services: Parts, state: RolloutState | None = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[RolloutView]:
    """Rollouts, newest first."""
    with services.db.read() as session:
        rows = service.list_rollouts(session, state=state, after=cursor, limit=limit + 1)
        return page_of(rows, limit, cursor=lambda row: row.id, show=RolloutView.model_validate)


@router.post(
    "", status_code=201, responses={200: {"model": PreviewView}, **responses(404, 409)}, dependencies=[IDEMPOTENT]
)
def create_rollout(
    services: Parts,
    who: Caller,
    response: Response,
    body: NewRollout,
    validate_only: Annotated[bool, Query(description="write nothing; answer 200 with what would happen")] = False,  # noqa: FBT002 - a query parameter
) -> RolloutView | PreviewView:
    """Plan a rollout, and start it if asked to."""
    now, plan = utc_now(), body.plan.plan()
    if validate_only:
        response.status_code = 200
        with services.db.read() as session:
            release = get_release(session, body.release)
            return PreviewView.model_validate(service.preview(session, release.id, plan, now=now))
    with services.db.transaction() as session:
        release = get_release(session, body.release)
        start_at = now if body.start else body.start_at
        rollout = service.create_rollout(session, release.id, plan, start_at=start_at, now=now, actor=who.actor)
        return RolloutView.model_validate(rollout)


@router.get("/{rollout_id:id}", responses=responses(404))
def get_rollout(services: Parts, rollout_id: PathId) -> RolloutDetail:
    """One rollout, and what it took over the wire."""
    with services.db.read() as session:
        view = RolloutView.model_validate(service.get_rollout(session, rollout_id))
        return RolloutDetail(**view.model_dump(), wire_bytes=service.wire_bytes(session, rollout_id))


@router.get("/{rollout_id:id}/stages", responses=responses(404))
def list_stages(services: Parts, rollout_id: PathId) -> Stages:
    """The stages in order, each with its gates' evidence."""
    with services.db.read() as session:
        return Stages(items=[StageView.model_validate(s) for s in service.stages_of(session, rollout_id)])


@router.get("/{rollout_id:id}/assignments", responses=responses(404))
def list_assignments(
    services: Parts,
    rollout_id: PathId,
    state: AssignmentState | None = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[AssignmentView]:
    """The devices' parts in the rollout, in the order they were admitted."""
    with services.db.read() as session:
        rows = service.assignments_of(session, rollout_id, state=state, after=cursor, limit=limit + 1)
        return page_of(rows, limit, cursor=lambda row: row.id, show=AssignmentView.model_validate)


@router.post("/{rollout_id:id}:start", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def start_rollout(services: Parts, who: Caller, rollout_id: PathId) -> RolloutView:
    """Start a draft, or a scheduled rollout before its time."""
    return _change(services, lambda session: service.start(session, rollout_id, now=utc_now(), actor=who.actor))


@router.post("/{rollout_id:id}:pause", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def pause_rollout(services: Parts, who: Caller, rollout_id: PathId, body: Reason | None = None) -> RolloutView:
    """Stop going forward; failing gates still roll back."""
    return _change(
        services,
        lambda session: service.pause(
            session, rollout_id, now=utc_now(), actor=who.actor, reason=body.reason if body else ""
        ),
    )


@router.post("/{rollout_id:id}:resume", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def resume_rollout(services: Parts, who: Caller, rollout_id: PathId) -> RolloutView:
    """Go on; the current stage gets its whole time again."""
    return _change(services, lambda session: service.resume(session, rollout_id, now=utc_now(), actor=who.actor))


@router.post("/{rollout_id:id}:rollback", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def roll_back(services: Parts, who: Caller, rollout_id: PathId, body: Reason | None = None) -> RolloutView:
    """Return every device of the rollout to what it ran before, also after it has succeeded."""
    return _change(
        services,
        lambda session: service.rollback(
            session, rollout_id, reason=body.reason if body else "", now=utc_now(), actor=who.actor
        ),
    )


@router.post("/{rollout_id:id}:cancel", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def cancel_rollout(services: Parts, who: Caller, rollout_id: PathId) -> RolloutView:
    """Drop a rollout that has not begun; one that has is rolled back instead."""
    return _change(services, lambda session: service.cancel(session, rollout_id, now=utc_now(), actor=who.actor))


def _change(services: Services, use_case: Callable[[Session], Rollout]) -> RolloutView:
    with services.db.transaction() as session:
        return RolloutView.model_validate(use_case(session))
