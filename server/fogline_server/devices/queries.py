"""Reading the fleet: one device, pages of devices, who is online."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import String, cast, or_, select
from sqlalchemy.orm import Session

from fogline_server.devices.tables import Device, EnrollmentToken
from fogline_shared.errors import Forbidden, NotFound, Unauthenticated
from fogline_shared.states import DeviceState


def is_online(device: Device, now: datetime) -> bool:
    """Whether the device's lease still runs. Derived, never stored."""
    return device.state == DeviceState.ACTIVE and device.lease_until is not None and device.lease_until > now


def get_device(session: Session, device_id: str) -> Device:
    """The device; raises NotFound ``device_not_found``."""
    device = session.get(Device, device_id)
    if device is None:
        raise NotFound("device_not_found", f"no device {device_id!r}", device_id=device_id)
    return device


def require_admitted(session: Session, device_id: str, *, lock: bool = False) -> Device:
    """The device behind a certificate, if it may still speak: every edge call begins here.

    ``lock`` holds the row to the end of the transaction. Raises Unauthenticated ``device_unknown``, Forbidden
    ``device_revoked``.
    """
    device = session.get(Device, device_id, with_for_update=lock or None)
    if device is None:
        raise Unauthenticated("device_unknown", f"no device {device_id!r} is enrolled here", device_id=device_id)
    if device.state == DeviceState.REVOKED:
        raise Forbidden("device_revoked", "this device's right to connect was revoked", device_id=device_id)
    return device


def device_classes(session: Session) -> set[str]:
    """The classes of all devices that are or may be in the fleet."""
    query = select(Device.device_class).where(Device.state != DeviceState.REVOKED).distinct()
    return set(session.scalars(query))


def classes_of(session: Session, device_ids: Collection[str]) -> dict[int, str]:
    """Device class by Flower node id."""
    rows = session.execute(select(Device.node_id, Device.device_class).where(Device.id.in_(device_ids)))
    return dict(rows.tuples().all())


def list_devices(
    session: Session,
    *,
    now: datetime,
    state: DeviceState | None = None,
    online: bool | None = None,
    tag: str | None = None,
    device_class: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Sequence[Device]:
    """Devices, newest first; ``after`` is the id of the last one seen."""
    query = select(Device).order_by(Device.id.desc()).limit(limit)
    if state is not None:
        query = query.where(Device.state == state)
    if online is True:
        query = query.where(Device.state == DeviceState.ACTIVE, Device.lease_until > now)
    elif online is False:
        query = query.where(
            or_(Device.state != DeviceState.ACTIVE, Device.lease_until.is_(None), Device.lease_until <= now)
        )
    if tag is not None:
        # Tags hold no quotes, so a quoted one occurs in the array's text only as itself, on either database.
        query = query.where(cast(Device.tags, String).contains(f'"{tag}"', autoescape=True))
    if device_class is not None:
        query = query.where(Device.device_class == device_class)
    if after is not None:
        query = query.where(Device.id < after)
    return session.scalars(query).all()


def list_tokens(session: Session, *, after: str | None = None, limit: int = 50) -> Sequence[EnrollmentToken]:
    """Enrolment tokens, newest first; ``after`` is the id of the last one seen. Secrets are not stored."""
    query = select(EnrollmentToken).order_by(EnrollmentToken.id.desc()).limit(limit)
    if after is not None:
        query = query.where(EnrollmentToken.id < after)
    return session.scalars(query).all()
