"""/v1/releases/{release}/measurements: what devices measure of a release's variants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy.orm import Session

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.schemas import Cursor, Id, Limit, Page, PathId, Resource
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.devices.queries import get_device
from fogline_server.jobs.doorbell import DEVICES, EVENTS
from fogline_server.registry.measurements import asking, summary
from fogline_server.registry.measurements.model import MeasurementState, Request
from fogline_server.registry.service import get_release
from fogline_server.registry.tables import Measurement

router = APIRouter(tags=["releases"], route_class=IdempotentRoute)


class NewMeasurements(schemas.Request):
    """Which ``devices`` (ids or names), or at most ``most`` that are online, of ``device_class`` or of any.

    ``variants``: all but the teacher where none is named. ``expires_s``: from when on no answer is waited for.
    """

    device_class: Id | None = None
    devices: list[Id] = Field(default_factory=list, max_length=1000)
    variants: list[Id] = Field(default_factory=list, max_length=100)
    most: int = 10
    expires_s: float = 3600.0


class MeasurementView(Resource):
    """``metrics``: p50_us, p99_us, load_ms, memory_bytes, size, runs, engine, machine, cached; null until it is DONE."""

    id: str
    release_id: str
    variant: str
    digest: str
    device_id: str
    device_name: str
    device_class: str
    state: MeasurementState
    metrics: dict[str, Any] | None
    error: dict[str, Any] | None
    asked_at: datetime
    expires_at: datetime
    answered_at: datetime | None


class ClassView(Resource):
    """A class's medians over ``devices``, each device's newest figures; ``failed``: how many never measured it, by code."""

    device_class: str
    variant: str
    devices: int
    p50_us: float | None
    p99_us: float | None
    memory_bytes: int | None
    failed: dict[str, int]
    waiting: int
    expired: int


class Asked(Resource):
    items: list[MeasurementView]


class Measurements(Page[MeasurementView]):
    """A page of measurements, and all of them summarised by device class and variant."""

    classes: list[ClassView]


def _show(row: Measurement, device_name: str, now: datetime) -> MeasurementView:
    columns = {column.key: getattr(row, column.key) for column in Measurement.__table__.columns if column.key != "size"}
    return MeasurementView(**{**columns, "state": asking.state_of(row, now=now), "device_name": device_name})


@router.get("/releases/{release:id}/measurements", responses=responses(404))
def list_measurements(services: Parts, release: PathId, cursor: Cursor = None, limit: Limit = 50) -> Measurements:
    """What devices measured of a release, newest first."""
    now = utc_now()
    with services.db.read() as session:
        release_id = get_release(session, release).id
        rows = asking.list_measurements(session, release_id, after=cursor, limit=limit + 1)
        page = page_of(rows, limit, cursor=lambda pair: pair[0].id, show=lambda pair: _show(*pair, now))
        classes = [ClassView.model_validate(each) for each in summary.of_release(session, release_id, now=now)]
        return Measurements(items=page.items, next_cursor=page.next_cursor, classes=classes)


@router.post(
    "/releases/{release:id}/measurements", status_code=201, responses=responses(404, 409), dependencies=[IDEMPOTENT]
)
def ask_devices(services: Parts, who: Caller, release: PathId, body: NewMeasurements) -> Asked:
    """Have devices measure a READY release's variants; who has been asked and not answered is not asked again."""
    now = utc_now()
    with services.db.transaction() as session:
        rows = asking.ask(session, release, Request(**body.model_dump()), now=now, actor=who.actor)
        session.flush()
        answer = Asked(items=[_show(row, _name(session, row), now) for row in rows])
    services.doorbell.ring(DEVICES, ",".join(_devices(rows)))
    services.doorbell.ring(EVENTS)
    return answer


def _name(session: Session, row: Measurement) -> str:
    return get_device(session, row.device_id).name


def _devices(rows: Sequence[Measurement]) -> list[str]:
    return sorted({row.device_id for row in rows})
