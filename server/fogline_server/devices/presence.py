"""What a connected device tells of itself, and for how long it counts as online."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import bindparam, update
from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.devices.queries import is_online, require_admitted
from fogline_server.devices.rules import check_attributes, check_hello
from fogline_server.devices.tables import Device
from fogline_shared.protocol import Hello, Scalar
from fogline_shared.states import DEVICE, DeviceState

_TABLE = Device.metadata.tables[Device.__tablename__]
_SET_TRAINED = update(_TABLE).where(_TABLE.c.id == bindparam("of")).values(last_trained_at=bindparam("at"))


def hello(session: Session, device_id: str, greeting: Hello, *, now: datetime, lease_s: float) -> Device:
    """A device has connected: note what it says of itself and lease it ``lease_s`` seconds of being online.

    The first hello makes a PENDING device ACTIVE. A new boot starts its sequence numbers again. Raises like
    :func:`~fogline_server.devices.queries.require_admitted`; InvalidInput ``bad_hello``, ``bad_attributes``.
    """
    check_hello(greeting)
    device = require_admitted(session, device_id, lock=True)
    if not is_online(device, now):
        events.record(session, "device.online", "device", device_id, actor=f"device:{device_id}", name=device.name)
    if device.state == DeviceState.PENDING:
        device.state = DEVICE.check(DeviceState.PENDING, DeviceState.ACTIVE)
    if device.boot_id != greeting.boot_id:
        device.boot_id, device.report_seq = greeting.boot_id, 0
    device.agent_version = greeting.agent_version
    device.recipes = list(greeting.recipes)
    device.attributes = dict(greeting.attributes)
    device.active_digest, device.active_generation = greeting.active_digest, greeting.generation
    device.lease_until, device.last_seen_at = now + timedelta(seconds=lease_s), now
    return device


def touch(session: Session, *device_ids: str, now: datetime, lease_s: float) -> None:
    """These devices are still connected: extend their leases in one statement. Revoked ones stay offline."""
    session.execute(
        update(Device)
        .where(Device.id.in_(device_ids), Device.state == DeviceState.ACTIVE)
        .values(lease_until=now + timedelta(seconds=lease_s), last_seen_at=now)
        .execution_options(synchronize_session=False)
    )


def disconnected(session: Session, device_id: str, boot_id: str, *, now: datetime) -> None:
    """The stream of this boot has ended: the device is offline, unless a later boot is connected already."""
    device = session.get(Device, device_id, with_for_update=True)
    if device is not None and device.boot_id == boot_id and is_online(device, now):
        device.lease_until, device.last_seen_at = now, now
        events.record(session, "device.offline", "device", device_id, actor=f"device:{device_id}", name=device.name)


def trained(session: Session, device_id: str, *, now: datetime) -> None:
    """The device has ended a training: what lies between two of them is counted from here."""
    # The table's own update: the mapped class's costs several times as much, and every reply to a training comes here.
    session.execute(_SET_TRAINED, {"of": device_id, "at": now})


def set_attributes(session: Session, device_id: str, attributes: Mapping[str, Scalar]) -> None:
    """Merge facts a device tells of itself; raises InvalidInput ``bad_attributes``, or like ``require_admitted``."""
    device = require_admitted(session, device_id, lock=True)
    device.attributes = dict(check_attributes({**device.attributes, **attributes}))
