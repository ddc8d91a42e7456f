"""Which devices' inputs have drifted away from those their release was made for: told once, and once when it is over."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from fogline_server.db import events
from fogline_server.devices.tables import Device
from fogline_shared.errors import InvalidInput
from fogline_shared.protocol import TelemetryWindow

MOST_FEATURES = 64
_LONGEST_NAME = 60
_LARGEST_PSI = 1e6


@dataclass(frozen=True, kw_only=True)
class DriftLimit:
    """A device drifts when the largest of its indices is above ``psi`` in so many ``reports`` in a row; below in one, no more.

    0.25 is the usual rule for "much has changed" (``fogline_shared.drift``).
    """

    psi: float = 0.25
    reports: int = 3


@dataclass(frozen=True, kw_only=True)
class FleetDrift:
    """Of the ``devices`` that said anything. ``psi``: of each feature the mean over their ``inputs``; ``worst``: by their latest."""

    devices: int
    inputs: int
    psi: Mapping[str, float]
    worst_device_id: str
    worst_psi: float


def check(window: TelemetryWindow) -> None:
    """Raise InvalidInput ``invalid_window`` for a drift that no honest device tells."""
    if len(window.drift) > MOST_FEATURES or not all(
        0 < len(n) <= _LONGEST_NAME and n.isprintable() for n in window.drift
    ):
        raise InvalidInput(
            "invalid_window", f"drift names up to {MOST_FEATURES} features by up to {_LONGEST_NAME} characters"
        )
    # NaN fails every comparison.
    if not all(0.0 <= psi < _LARGEST_PSI for psi in window.drift.values()):
        raise InvalidInput("invalid_window", f"a population stability index is outside [0, {_LARGEST_PSI:.0f})")
    if bool(window.drift) != bool(window.drift_inputs):
        raise InvalidInput("invalid_window", "drift comes with the number of its inputs")


def take(session: Session, device_id: str, window: TelemetryWindow, limit: DriftLimit, *, now: datetime) -> None:
    """Keep what a checked window says of drift, if it does, and record when that begins or ends."""
    if not window.drift:
        return
    device = session.get_one(Device, device_id)
    worst = max(window.drift, key=window.drift.__getitem__)
    above = (device.drift["above"] if device.drift else 0) + 1 if window.drift[worst] > limit.psi else 0
    device.drift = {
        "artifact_digest": window.artifact_digest,
        "psi": dict(window.drift),
        "inputs": window.drift_inputs,
        "above": above,
        "at": now.isoformat(),
    }
    facts: dict[str, Any] = {
        "name": device.name,
        "feature": worst,
        "psi": window.drift[worst],
        "artifact_digest": window.artifact_digest,
    }
    if above >= limit.reports and device.drifting_since is None:
        device.drifting_since = now
        events.record(session, "device.drifting", "device", device_id, **facts)
    elif not above and device.drifting_since is not None:
        device.drifting_since = None
        events.record(session, "device.drift_ended", "device", device_id, **facts)


def stored(window: TelemetryWindow) -> dict[str, Any]:
    """For the window's row; nothing where the window says nothing."""
    return {"drift": dict(window.drift), "drift_inputs": window.drift_inputs} if window.drift else {}


def of_fleet(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> FleetDrift | None:
    """From rows (device id, what :func:`stored` gave among other things), newest first; None: no device said anything."""
    latest: dict[str, float] = {}
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    inputs = 0
    for device_id, row in rows:
        if not row.get("drift"):
            continue
        inputs += row["drift_inputs"]
        latest.setdefault(device_id, max(row["drift"].values()))
        for name, psi in row["drift"].items():
            sums[name] = sums.get(name, 0.0) + psi * row["drift_inputs"]
            counts[name] = counts.get(name, 0) + row["drift_inputs"]
    if not latest:
        return None
    worst = max(latest, key=latest.__getitem__)
    return FleetDrift(
        devices=len(latest),
        inputs=inputs,
        psi={name: total / counts[name] for name, total in sums.items()},
        worst_device_id=worst,
        worst_psi=latest[worst],
    )
