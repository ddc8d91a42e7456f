"""Prometheus metrics, counted from the rows when they are asked for: the same on every replica."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from fogline_server.api.auth import authorise
from fogline_server.api.problems import responses
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.devices.tables import Device
from fogline_server.jobs.tables import Job, Outbox
from fogline_server.registry.tables import Release
from fogline_server.rollouts.tables import Rollout
from fogline_server.training.tables import Run

router = APIRouter(tags=["health"])

_STATES = {"devices": Device.state, "jobs": Job.state, "runs": Run.state, "releases": Release.state}
_STATES |= {"rollouts": Rollout.state}


class _Rows(Collector):
    """Gauges over one database session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, column in _STATES.items():
            family = GaugeMetricFamily(f"fogline_{name}", f"Number of {name} by state", labels=["state"])
            for state, count in self._session.execute(select(column, func.count()).group_by(column)):
                family.add_metric([state], count)
            yield family
        online = select(func.count()).select_from(Device).where(Device.lease_until > utc_now())
        yield GaugeMetricFamily(
            "fogline_devices_online", "Devices whose lease holds", value=self._session.scalar(online) or 0
        )
        drifting = select(func.count()).select_from(Device).where(Device.drifting_since.is_not(None))
        yield GaugeMetricFamily(
            "fogline_devices_drifting",
            "Devices whose inputs are not those of their release",
            value=self._session.scalar(drifting) or 0,
        )
        waiting = select(func.count()).select_from(Outbox)
        yield GaugeMetricFamily(
            "fogline_outbox_waiting", "Rings not yet sent to workers", value=self._session.scalar(waiting) or 0
        )


@router.get(
    "/metrics",
    dependencies=[Depends(authorise)],
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **responses(401, 503)},
)
def metrics(services: Parts) -> Response:
    """Prometheus text format. Scrape it with a viewer's key."""
    registry = CollectorRegistry()
    with services.db.read() as session:
        registry.register(_Rows(session))
        text = generate_latest(registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
