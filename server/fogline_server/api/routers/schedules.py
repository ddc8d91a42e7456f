"""/v1/schedules: what starts by itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from pydantic import Field

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.schemas import Cursor, JsonObject, Limit, Moment, Name, Page, PathId, Resource
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.schedules import service
from fogline_server.schedules.service import ScheduleSpec

router = APIRouter(prefix="/schedules", tags=["schedules"], route_class=IdempotentRoute)

Action = Literal["run", "rollout", "job"]
Misfire = Literal["fire_once", "skip"]
Overlap = Literal["skip", "allow"]
Word = Annotated[str, Field(pattern=r"^[ -~]{1,80}$")]


class NewSchedule(schemas.Request):
    """Start ``action`` with ``spec`` once (``at``) or by ``cron`` in ``time_zone``.

    ``misfire``: what to do about a time that passed while no coordinator ran; ``overlap``: while the thing started
    last time is unfinished.
    """

    name: Name
    action: Action
    spec: JsonObject = Field(default_factory=dict)
    cron: Word | None = None
    at: Moment | None = None
    time_zone: Word = "UTC"
    misfire: Misfire = "fire_once"
    overlap: Overlap = "skip"
    enabled: bool = True


class ScheduleChange(schemas.Request):
    """What is absent stays. Giving ``cron`` drops ``at`` and the other way round."""

    name: Name | None = None
    spec: JsonObject | None = None
    cron: Word | None = None
    at: Moment | None = None
    time_zone: Word | None = None
    misfire: Misfire | None = None
    overlap: Overlap | None = None
    enabled: bool | None = None


class ScheduleView(Resource):
    """``last_result``: what the last firing started, or why it did not."""

    id: str
    name: str
    action: Action
    spec: dict[str, Any]
    cron: str | None
    at: datetime | None
    time_zone: str
    misfire: Misfire
    overlap: Overlap
    enabled: bool
    next_at: datetime | None
    last_at: datetime | None
    last_result: dict[str, Any] | None
    created_at: datetime


@router.get("")
def list_schedules(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[ScheduleView]:
    """Schedules, newest first."""
    with services.db.read() as session:
        rows = service.list_schedules(session, after=cursor, limit=limit + 1)
        return page_of(rows, limit, cursor=lambda row: row.id, show=ScheduleView.model_validate)


@router.post("", status_code=201, responses=responses(409), dependencies=[IDEMPOTENT])
def create_schedule(services: Parts, who: Caller, body: NewSchedule) -> ScheduleView:
    """Make a schedule."""
    spec = ScheduleSpec(**body.model_dump())
    with services.db.transaction() as session:
        row = service.create_schedule(session, spec, actions=services.actions, now=utc_now(), actor=who.actor)
        return ScheduleView.model_validate(row)


@router.get("/{schedule_id:id}", responses=responses(404))
def get_schedule(services: Parts, schedule_id: PathId) -> ScheduleView:
    """One schedule."""
    with services.db.read() as session:
        return ScheduleView.model_validate(service.get_schedule(session, schedule_id))


@router.patch("/{schedule_id:id}", responses=responses(404, 409))
def update_schedule(services: Parts, who: Caller, schedule_id: PathId, body: ScheduleChange) -> ScheduleView:
    """Change a schedule; its next time is counted from now."""
    changes = body.model_dump(exclude_none=True)
    if "cron" in changes and "at" not in changes:
        changes["at"] = None
    elif "at" in changes and "cron" not in changes:
        changes["cron"] = None
    with services.db.transaction() as session:
        spec = replace(service.spec_of(service.get_schedule(session, schedule_id)), **changes)
        row = service.update_schedule(
            session, schedule_id, spec, actions=services.actions, now=utc_now(), actor=who.actor
        )
        return ScheduleView.model_validate(row)


@router.delete("/{schedule_id:id}", status_code=204, responses=responses(404))
def delete_schedule(services: Parts, who: Caller, schedule_id: PathId) -> None:
    """Remove a schedule; what it started goes on."""
    with services.db.transaction() as session:
        service.delete_schedule(session, schedule_id, now=utc_now(), actor=who.actor)
