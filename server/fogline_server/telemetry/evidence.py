"""What an artifact did on a set of devices, added up over their telemetry windows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from itertools import islice
from math import ceil, floor
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from fogline_server.telemetry.drift import FleetDrift, of_fleet
from fogline_server.telemetry.tables import Window
from fogline_shared.sketch import Sketch, merge

# Parameters of one statement; PostgreSQL allows 65,535, SQLite 32,766.
_CHUNK = 10_000


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Sums. ``predictions`` includes the ``errors``; ``confidence_sum`` is in units of 1, not percent."""

    devices: int = 0
    predictions: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    confidence_sum: float = 0.0
    confidence_count: int = 0

    def __add__(self, other: Evidence) -> Evidence:
        """Of two disjoint sets of devices."""
        return Evidence(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


def balanced(parts: Collection[Evidence]) -> Evidence:
    """Add up one Evidence a device, but let no device count for more than all others together.

    A device that measured alone counts as it is. Applied to predictions, labels and confidences each for itself: of the
    largest, so many values are left as the others have, at its own mean; fractions are rounded to its disadvantage.
    """
    total = sum(parts, Evidence())
    predictions, errors = _balanced([(p.predictions, p.errors) for p in parts])
    labelled, correct = _balanced([(p.labelled, p.correct) for p in parts])
    confidence_count, confidence_sum = _balanced([(p.confidence_count, p.confidence_sum) for p in parts])
    return replace(
        total,
        predictions=predictions,
        errors=ceil(errors),
        labelled=labelled,
        correct=floor(correct),
        confidence_count=confidence_count,
        confidence_sum=confidence_sum,
    )


def _balanced(means: Sequence[tuple[int, float]]) -> tuple[int, float]:
    """Of (count, sum) pairs."""
    count, total = sum(n for n, _ in means), sum(s for _, s in means)
    largest, its_sum = max(means, default=(0, 0.0))
    others = count - largest
    if not 0 < others < largest:
        return count, total
    return 2 * others, total - its_sum + its_sum * others / largest


def by_device(
    session: Session, *, digests: Collection[str], devices: Collection[str] | None, since: datetime
) -> list[Evidence]:
    """As :func:`evidence`, one for each device that measured."""
    if not digests:
        return []
    query = _query(digests, since).group_by(Window.device_id)
    if devices is None:
        return _sums(session, query)
    return [part for chunk in _chunks(devices) for part in _sums(session, query.where(Window.device_id.in_(chunk)))]


def evidence(
    session: Session, *, digests: Collection[str], devices: Collection[str] | None, since: datetime
) -> Evidence:
    """Add up the windows of ``digests`` received after ``since`` from ``devices`` (None: from any)."""
    if not digests:
        return Evidence()
    query = _query(digests, since)
    if devices is None:
        return sum(_sums(session, query), Evidence())
    parts = (part for chunk in _chunks(devices) for part in _sums(session, query.where(Window.device_id.in_(chunk))))
    return sum(parts, Evidence())


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Evidence with its distributions; ``dropped_windows``: lost on devices because their spool was full."""

    evidence: Evidence
    latency_us: Sketch
    confidence_pct: Sketch
    class_counts: Sequence[int]
    dropped_windows: int
    drift: FleetDrift | None


def summary(
    session: Session,
    *,
    digest: str,
    since: datetime,
    devices: Collection[str] | None = None,
    limit: int = 20_000,
) -> Summary:
    """Distributions of one artifact over its latest ``limit`` windows received after ``since``."""
    query = select(Window.sketches, Window.dropped_windows, Window.device_id).where(
        Window.artifact_digest == digest, Window.received_at >= since
    )
    if devices is not None:
        query = query.where(Window.device_id.in_(devices))
    rows = session.execute(query.order_by(Window.id.desc()).limit(limit)).all()
    counts: list[int] = []
    for sketches, _, _ in rows:
        theirs = sketches["class_counts"]
        counts += [0] * (len(theirs) - len(counts))
        for label, count in enumerate(theirs):
            counts[label] += count
    return Summary(
        evidence=evidence(session, digests=[digest], devices=devices, since=since),
        latency_us=merge(_sketch(sketches["latency_us"]) for sketches, _, _ in rows),
        confidence_pct=merge(_sketch(sketches["confidence_pct"]) for sketches, _, _ in rows),
        class_counts=counts,
        dropped_windows=sum(dropped for _, dropped, _ in rows),
        drift=of_fleet((device_id, sketches) for sketches, _, device_id in rows),
    )


def _query(digests: Collection[str], since: datetime) -> Select[*tuple[Any, ...]]:
    columns = (
        func.count(Window.device_id.distinct()),
        func.sum(Window.predictions),
        func.sum(Window.errors),
        func.sum(Window.labelled),
        func.sum(Window.correct),
        func.sum(Window.confidence_sum),
        func.sum(Window.confidence_count),
    )
    return select(*columns).where(Window.artifact_digest.in_(digests), Window.received_at >= since)


def _sums(session: Session, query: Select[*tuple[Any, ...]]) -> list[Evidence]:
    return [
        Evidence(
            devices=devices,
            predictions=int(predictions or 0),
            errors=int(errors or 0),
            labelled=int(labelled or 0),
            correct=int(correct or 0),
            confidence_sum=float(confidence_pct or 0.0) / 100.0,
            confidence_count=int(confidence_count or 0),
        )
        for devices, predictions, errors, labelled, correct, confidence_pct, confidence_count in session.execute(query)
    ]


def _chunks(ids: Collection[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


def _sketch(value: dict[str, list[int] | float]) -> Sketch:
    counts, total = value["counts"], value["sum"]
    assert isinstance(counts, list)
    assert isinstance(total, float | int)
    return Sketch.of(counts, total)
