"""/v1/devices: the fleet."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.schemas import ID_PATTERN, Cursor, Limit, Page, PathId, Resource, Tag, Tags, Text
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.devices import service
from fogline_server.devices.tables import Device
from fogline_server.jobs.doorbell import DEVICES
from fogline_server.training.why_not import why_not
from fogline_shared.states import DeviceState

router = APIRouter(prefix="/devices", tags=["devices"], route_class=IdempotentRoute)


class DeviceDrift(Resource):
    """What a device last said of its inputs. ``psi``: population stability index by feature; ``above``: reports in a row above the limit."""

    artifact_digest: str
    psi: dict[str, float]
    inputs: int
    above: int
    at: datetime


class DeviceView(Resource):
    """One enrolled agent. ``online`` follows from its lease; ``active_digest`` is what it says it runs.

    ``drift`` is null until it has said anything of it; ``drifting_since`` while its inputs are not those of its release.
    """

    id: str
    name: str
    node_id: int
    device_class: str
    state: DeviceState
    online: bool = False
    tags: list[str]
    attributes: dict[str, Any]
    recipes: list[str]
    agent_version: str
    certificate_until: datetime | None
    active_digest: str
    active_generation: int
    created_at: datetime
    last_seen_at: datetime | None
    last_trained_at: datetime | None
    drift: DeviceDrift | None
    drifting_since: datetime | None


class Revocation(schemas.Request):
    reason: Text = ""


class NewTags(schemas.Request):
    tags: Tags


class ReasonView(Resource):
    """A stable code, and words of which the device is the subject."""

    code: str
    text: str


class WhyNotView(Resource):
    """How a device stands to a run; ``reasons`` is empty when the next round may choose it. ``round``: the open one."""

    device_id: str
    run_id: str
    eligible: bool
    reasons: list[ReasonView]
    round: int | None
    taking_part: bool
    notes: list[str]


def show(device: Device, now: datetime) -> DeviceView:
    """A device as of ``now``."""
    view = DeviceView.model_validate(device)
    view.online = service.is_online(device, now)
    return view


@router.get("")
def list_devices(
    services: Parts,
    state: DeviceState | None = None,
    online: bool | None = None,  # noqa: FBT001 - a query parameter
    tag: Annotated[Tag | None, Query()] = None,
    device_class: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DeviceView]:
    """Devices, newest first."""
    now = utc_now()
    with services.db.read() as session:
        rows = service.list_devices(
            session,
            now=now,
            state=state,
            online=online,
            tag=tag,
            device_class=device_class,
            after=cursor,
            limit=limit + 1,
        )
        return page_of(rows, limit, cursor=lambda row: row.id, show=lambda row: show(row, now))


@router.get("/{device_id:id}", responses=responses(404))
def get_device(services: Parts, device_id: PathId) -> DeviceView:
    """One device."""
    with services.db.read() as session:
        return show(service.get_device(session, device_id), utc_now())


@router.get("/{device_id:id}/why-not", responses=responses(404))
def get_why_not(services: Parts, device_id: PathId, run: Annotated[str, Query(pattern=ID_PATTERN)]) -> WhyNotView:
    """Why a device does not take part in a run, in words."""
    with services.db.read() as session:
        return WhyNotView.model_validate(why_not(session, device_id, run, now=utc_now()))


@router.put("/{device_id:id}/tags", responses=responses(404))
def set_device_tags(services: Parts, who: Caller, device_id: PathId, body: NewTags) -> DeviceView:
    """Replace a device's tags."""
    with services.db.transaction() as session:
        return show(service.set_tags(session, device_id, body.tags, actor=who.actor), utc_now())


@router.post("/{device_id:id}:revoke", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def revoke_device(services: Parts, who: Caller, device_id: PathId, body: Revocation | None = None) -> DeviceView:
    """End a device's right to connect, for good. An open connection ends at once."""
    now = utc_now()
    reason = body.reason if body else ""
    with services.db.transaction() as session:
        view = show(service.revoke(session, device_id, now=now, actor=who.actor, reason=reason), now)
    services.doorbell.ring(DEVICES, device_id)
    return view
