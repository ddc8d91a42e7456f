"""Which devices may take part in a run, and why the others may not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.devices.queries import is_online
from fogline_server.devices.tables import Device
from fogline_shared.eligibility import SAMPLES, Eligibility, Reason
from fogline_shared.protocol import Scalar
from fogline_shared.states import DeviceState


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a round asks of devices.

    ``counts``: samples by node id as the run has counted them, which goes before what devices tell; None: the round is there
    to count them, so that nobody is left out for an old number.
    """

    recipe: str
    tags: Sequence[str] = ()
    exclude_tags: Sequence[str] = ()
    conditions: Eligibility = field(default_factory=Eligibility)
    counts: Mapping[int, int] | None = None

    def attributes_of(self, device: Device) -> dict[str, Scalar]:
        """What the conditions look at."""
        told = dict(device.attributes)
        if self.counts is None:
            told.pop(SAMPLES, None)
        elif device.node_id in self.counts:
            told[SAMPLES] = self.counts[device.node_id]
        return told


def ineligible_reasons(device: Device, wanted: Wanted, *, now: datetime) -> list[Reason]:
    """Why the device may not take part; empty means eligible. The same rules as :func:`eligible`, for ``why-not``."""
    reasons = []
    if device.state != DeviceState.ACTIVE:
        reasons.append(Reason("not_active", f"is {device.state}, not ACTIVE"))
    elif not is_online(device, now):
        reasons.append(Reason("offline", "is offline"))
    if wanted.recipe not in device.recipes:
        offered = ", ".join(device.recipes) or "none"
        text = f"has no recipe {wanted.recipe!r} installed for training (has: {offered})"
        reasons.append(Reason("recipe_missing", text))
    if missing := sorted(set(wanted.tags) - set(device.tags)):
        reasons.append(Reason("tags_missing", f"lacks the tags {', '.join(missing)}"))
    if excluded := sorted(set(wanted.exclude_tags) & set(device.tags)):
        reasons.append(Reason("tags_excluded", f"has the excluded tags {', '.join(excluded)}"))
    since_s = None if device.last_trained_at is None else (now - device.last_trained_at).total_seconds()
    return reasons + wanted.conditions.unmet(wanted.attributes_of(device), since_training_s=since_s)


def eligible(session: Session, wanted: Wanted, *, now: datetime) -> Sequence[Device]:
    """Devices that could take part now, by id: ACTIVE, online, and nothing that ``wanted`` asks speaks against them."""
    online = select(Device).where(Device.state == DeviceState.ACTIVE, Device.lease_until > now).order_by(Device.id)
    return [device for device in session.scalars(online) if not ineligible_reasons(device, wanted, now=now)]
