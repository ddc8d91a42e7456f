"""Ask devices to measure variants, and read what they answered. The caller owns the transaction, and rings the devices."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.db.base import new_id
from fogline_server.devices.queries import list_devices
from fogline_server.devices.tables import Device
from fogline_server.registry.measurements.model import MOST_AT_ONCE, MeasurementState, Request
from fogline_server.registry.model import TEACHER
from fogline_server.registry.service import get_variant, ready_release, variants_of
from fogline_server.registry.tables import Measurement, Release, Variant
from fogline_shared.errors import Conflict, InvalidInput, NotFound
from fogline_shared.states import DeviceState

PREFIX = "measurement"


def ask(session: Session, reference: str, request: Request, *, now: datetime, actor: str) -> list[Measurement]:
    """One row a device and variant; where one waits for an answer already, that one.

    Raises NotFound ``release_not_found``, ``variant_not_found``, ``variant_left_out``, ``device_not_found``; Conflict
    ``release_not_ready``, ``release_unlisted``, ``device_revoked``, ``no_devices_online``; InvalidInput
    ``invalid_measurement``.
    """
    release = ready_release(session, reference)
    variants = _variants(session, release, request)
    devices = _devices(session, request, now=now)
    if len(devices) * len(variants) > MOST_AT_ONCE:
        message = f"{len(devices)} devices times {len(variants)} variants; at most {MOST_AT_ONCE} measurements at once"
        raise InvalidInput("invalid_measurement", message)
    waiting = _waiting(session, release.id, [device.id for device in devices], now=now)
    rows, new = [], 0
    for device in devices:
        for variant in variants:
            row = waiting.get((device.id, variant.name))
            if row is None:
                row, new = _row(release, variant, device, request, now=now), new + 1
                session.add(row)
            rows.append(row)
    if new:
        events.record(
            session, "measurement.asked", "release", release.id, actor=actor, devices=len(devices), measurements=new
        )
    return rows


def _row(release: Release, variant: Variant, device: Device, request: Request, *, now: datetime) -> Measurement:
    return Measurement(
        id=new_id(PREFIX),
        release_id=release.id,
        variant=variant.name,
        digest=variant.digest,
        size=variant.size,
        device_id=device.id,
        device_class=device.device_class,
        state=MeasurementState.ASKED,
        metrics=None,
        error=None,
        asked_at=now,
        expires_at=now + timedelta(seconds=request.expires_s),
        answered_at=None,
    )


def _variants(session: Session, release: Release, request: Request) -> Sequence[Variant]:
    if request.variants:
        return [get_variant(session, release.id, name) for name in dict.fromkeys(request.variants)]
    found = variants_of(session, release.id)
    return [variant for variant in found if variant.name != TEACHER] or found


def _devices(session: Session, request: Request, *, now: datetime) -> Sequence[Device]:
    if request.devices:
        return list({device.id: device for device in (_named(session, name) for name in request.devices)}.values())
    found = list_devices(session, now=now, online=True, device_class=request.device_class, limit=request.most)
    if not found:
        of_class = "" if request.device_class is None else f" of class {request.device_class!r}"
        raise Conflict("no_devices_online", f"no device{of_class} is online; name the ones that shall measure later")
    return found


def _named(session: Session, reference: str) -> Device:
    device = session.get(Device, reference) or session.scalar(select(Device).where(Device.name == reference))
    if device is None:
        raise NotFound("device_not_found", f"no device {reference!r}", device_id=reference)
    if device.state == DeviceState.REVOKED:
        raise Conflict("device_revoked", f"the right of device {device.name!r} to connect was revoked")
    return device


def _waiting(
    session: Session, release_id: str, device_ids: Sequence[str], *, now: datetime
) -> dict[tuple[str, str], Measurement]:
    rows = session.scalars(
        select(Measurement).where(
            Measurement.release_id == release_id,
            Measurement.device_id.in_(device_ids),
            Measurement.state == MeasurementState.ASKED,
            Measurement.expires_at > now,
        )
    )
    return {(row.device_id, row.variant): row for row in rows}


def state_of(row: Measurement, *, now: datetime) -> MeasurementState:
    """What a row says at this time."""
    if row.state == MeasurementState.ASKED and row.expires_at <= now:
        return MeasurementState.EXPIRED
    return MeasurementState(row.state)


def list_measurements(
    session: Session, release_id: str, *, after: str | None = None, limit: int = 50
) -> Sequence[tuple[Measurement, str]]:
    """A release's measurements with their devices' names, newest first; ``after``: the id of the last one seen."""
    query = (
        select(Measurement, Device.name)
        .join(Device, Device.id == Measurement.device_id)
        .where(Measurement.release_id == release_id)
        .order_by(Measurement.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(Measurement.id < after)
    return [(row, name) for row, name in session.execute(query)]
