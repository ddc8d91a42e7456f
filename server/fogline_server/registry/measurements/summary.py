"""What a class of devices measured of a variant: medians over devices, each with its newest figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.registry.measurements.asking import state_of
from fogline_server.registry.measurements.model import MeasurementState
from fogline_server.registry.tables import Measurement


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """Medians over the ``devices`` that measured it; None: none did.

    ``failed``: code → devices that never measured it and said so last. ``waiting``: devices that have been asked and may still answer; ``expired``: of those that never answered.
    """

    device_class: str
    variant: str
    devices: int
    p50_us: float | None
    p99_us: float | None
    memory_bytes: int | None
    failed: Mapping[str, int]
    waiting: int
    expired: int


def of_release(session: Session, release_id: str, *, now: datetime) -> list[ClassFigures]:
    """By device class and variant."""
    groups = _groups(session, release_id)
    return [_figures(name, variant, rows, now=now) for (name, variant), rows in sorted(groups.items())]


def p50_of_class(session: Session, release_id: str, device_class: str) -> dict[str, float]:
    """The class's median microseconds by variant; without those that none of its devices has measured."""
    groups = _groups(session, release_id)
    medians = {
        variant: _median(_done(rows), "p50_us") for (name, variant), rows in groups.items() if name == device_class
    }
    return {variant: p50 for variant, p50 in medians.items() if p50 is not None}


def _groups(session: Session, release_id: str) -> dict[tuple[str, str], list[Measurement]]:
    """A release's measurements by device class and variant, oldest first."""
    query = select(Measurement).where(Measurement.release_id == release_id)
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for row in session.scalars(query.order_by(Measurement.asked_at, Measurement.id)):
        groups.setdefault((row.device_class, row.variant), []).append(row)
    return groups


def _newest(rows: Iterable[Measurement]) -> dict[str, Measurement]:
    """Each device's newest figures, or else its newest refusal: what could not be measured today was measured before."""
    newest: dict[str, Measurement] = {}
    for row in rows:
        before = newest.get(row.device_id)
        if row.answered_at is not None and (row.metrics is not None or before is None or before.metrics is None):
            newest[row.device_id] = row
    return newest


def _done(rows: Iterable[Measurement]) -> list[dict[str, Any]]:
    return [row.metrics for row in _newest(rows).values() if row.metrics is not None]


def _figures(device_class: str, variant: str, rows: Sequence[Measurement], *, now: datetime) -> ClassFigures:
    newest, done = _newest(rows), _done(rows)
    states = {state: {row.device_id for row in rows if state_of(row, now=now) == state} for state in MeasurementState}
    waiting = states[MeasurementState.ASKED]
    memory = _median(done, "memory_bytes")
    return ClassFigures(
        device_class=device_class,
        variant=variant,
        devices=len(done),
        p50_us=_median(done, "p50_us"),
        p99_us=_median(done, "p99_us"),
        memory_bytes=None if memory is None else int(memory),
        failed=Counter(row.error["code"] for row in newest.values() if row.error is not None),
        waiting=len(waiting),
        expired=len(states[MeasurementState.EXPIRED] - newest.keys() - waiting),
    )


def _median(done: Sequence[dict[str, Any]], name: str) -> float | None:
    return round(median(metrics[name] for metrics in done), 1) if done else None
