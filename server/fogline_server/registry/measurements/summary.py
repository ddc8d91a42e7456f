"""What a class of devices measured of a variant: medians over devices, each with its newest answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.registry.measurements.asking import state_of
from fogline_server.registry.measurements.model import MeasurementState
from fogline_server.registry.tables import Measurement


@dataclass(frozen=True, kw_only=True)
class ClassFigures:
    """``devices``: how many measured it. Medians over them; None: none did. ``failed``: code → devices whose newest answer it is.

    ``waiting``: devices that have been asked and may still answer; ``expired``: of those that never answered.
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
    rows = session.scalars(
        select(Measurement).where(Measurement.release_id == release_id).order_by(Measurement.asked_at, Measurement.id)
    )
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for row in rows:
        groups.setdefault((row.device_class, row.variant), []).append(row)
    return [_figures(name, variant, group, now=now) for (name, variant), group in sorted(groups.items())]


def p50_of_class(session: Session, release_id: str, device_class: str, *, now: datetime) -> dict[str, float]:
    """The class's median microseconds by variant; without those that none of its devices has measured."""
    return {
        each.variant: each.p50_us
        for each in of_release(session, release_id, now=now)
        if each.device_class == device_class and each.p50_us is not None
    }


def _figures(device_class: str, variant: str, rows: Iterable[Measurement], *, now: datetime) -> ClassFigures:
    newest: dict[str, Measurement] = {}
    waiting, unanswered = set(), set()
    for row in rows:
        match state_of(row, now=now):
            case MeasurementState.ASKED:
                waiting.add(row.device_id)
            case MeasurementState.EXPIRED:
                unanswered.add(row.device_id)
            case _:
                newest[row.device_id] = row
    done = [row.metrics for row in newest.values() if row.metrics is not None]
    return ClassFigures(
        device_class=device_class,
        variant=variant,
        devices=len(done),
        p50_us=_median([metrics["p50_us"] for metrics in done]),
        p99_us=_median([metrics["p99_us"] for metrics in done]),
        memory_bytes=int(median(metrics["memory_bytes"] for metrics in done)) if done else None,
        failed=Counter(row.error["code"] for row in newest.values() if row.error is not None),
        waiting=len(waiting),
        expired=len(unanswered - newest.keys() - waiting),
    )


def _median(values: list[float]) -> float | None:
    return round(median(values), 1) if values else None
