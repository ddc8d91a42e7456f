"""/v1/telemetry: what an artifact did on the fleet."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from fogline_server.api.schemas import Digest, Resource
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.telemetry.evidence import summary
from fogline_shared.sketch import Sketch

router = APIRouter(prefix="/telemetry", tags=["telemetry"])


class Quantiles(Resource):
    """Of a mergeable sketch: within about 5 %. Null: nothing was measured."""

    mean: float | None
    p10: float | None
    p50: float | None
    p99: float | None


class DriftSummary(Resource):
    """How far inputs are from those of the release, over the devices that said so.

    ``psi``: of each feature the population stability index, the mean over ``inputs``; the worst device is that by its latest report.
    """

    devices: int
    inputs: int
    psi: dict[str, float]
    worst_device_id: str
    worst_psi: float


class TelemetrySummary(Resource):
    """Sums and distributions over devices. ``accuracy`` is over ``labelled`` predictions, null without any.

    ``drift`` is null when no device has said anything of it.
    """

    artifact_digest: str
    devices: int
    predictions: int
    errors: int
    labelled: int
    correct: int
    accuracy: float | None
    latency_us: Quantiles
    confidence_pct: Quantiles
    class_counts: list[int]
    dropped_windows: int
    drift: DriftSummary | None


def _quantiles(sketch: Sketch) -> Quantiles:
    values = {
        "mean": sketch.mean,
        "p10": sketch.quantile(0.1),
        "p50": sketch.quantile(0.5),
        "p99": sketch.quantile(0.99),
    }
    return Quantiles(**{name: None if math.isnan(value) else value for name, value in values.items()})


@router.get("")
def get_telemetry(
    services: Parts,
    artifact_digest: Annotated[Digest, Query()],
    since_s: Annotated[float, Query(gt=0, le=366 * 86_400, description="how far back, in seconds")] = 3600.0,
) -> TelemetrySummary:
    """What one artifact did lately."""
    with services.db.read() as session:
        found = summary(session, digest=artifact_digest, since=utc_now() - timedelta(seconds=since_s))
    seen = found.evidence
    return TelemetrySummary(
        artifact_digest=artifact_digest,
        devices=seen.devices,
        predictions=seen.predictions,
        errors=seen.errors,
        labelled=seen.labelled,
        correct=seen.correct,
        accuracy=seen.correct / seen.labelled if seen.labelled else None,
        latency_us=_quantiles(found.latency_us),
        confidence_pct=_quantiles(found.confidence_pct),
        class_counts=list(found.class_counts),
        dropped_windows=found.dropped_windows,
        drift=None if found.drift is None else DriftSummary.model_validate(found.drift),
    )
