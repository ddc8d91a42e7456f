"""Which devices may take part in a run, and why the others may not."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.devices.queries import is_online
from fogline_server.devices.tables import Device
from fogline_shared.states import DeviceState


def ineligible_reasons(
    device: Device, *, recipe: str, tags: Collection[str] = (), exclude_tags: Collection[str] = (), now: datetime
) -> list[str]:
    """One sentence a reason; empty means eligible. The same rules as :func:`eligible`, for ``why-not``."""
    reasons = []
    if device.state != DeviceState.ACTIVE:
        reasons.append(f"is {device.state}, not ACTIVE")
    elif not is_online(device, now):
        reasons.append("is offline")
    if recipe not in device.recipes:
        offered = ", ".join(device.recipes) or "none"
        reasons.append(f"has no recipe {recipe!r} installed for training (has: {offered})")
    if missing := sorted(set(tags) - set(device.tags)):
        reasons.append(f"lacks the tags {', '.join(missing)}")
    if excluded := sorted(set(exclude_tags) & set(device.tags)):
        reasons.append(f"has the excluded tags {', '.join(excluded)}")
    return reasons


def eligible(
    session: Session, *, recipe: str, tags: Collection[str] = (), exclude_tags: Collection[str] = (), now: datetime
) -> Sequence[Device]:
    """Devices that could train ``recipe`` now, by id: ACTIVE, online, recipe installed, all tags, no excluded one."""
    online = select(Device).where(Device.state == DeviceState.ACTIVE, Device.lease_until > now).order_by(Device.id)
    return [
        device
        for device in session.scalars(online)
        if not ineligible_reasons(device, recipe=recipe, tags=tags, exclude_tags=exclude_tags, now=now)
    ]
