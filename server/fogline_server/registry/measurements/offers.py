"""The gateway's side of measuring on devices: what a device is offered, may read, and answered. As training's ``offers``."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from fogline_server.devices.service import require_admitted
from fogline_server.registry.measurements.asking import PREFIX
from fogline_server.registry.measurements.model import MeasurementState
from fogline_server.registry.tables import Measurement
from fogline_server.training.offers import records_of
from fogline_shared.errors import InvalidInput, NotFound
from fogline_shared.measurement import ARTIFACT, MEASURE, Figures, Subject
from fogline_shared.protocol import BlobRef, TaskOffer, TaskReply


def is_measurement(task_id: str) -> bool:
    """Whether a task's id is a measurement's, and not one of training."""
    return task_id.startswith(f"{PREFIX}_")


def open_of(session: Session, device_ids: Collection[str], *, now: datetime) -> dict[str, list[TaskOffer]]:
    """What devices have been asked and not answered, by device; those without are left out."""
    query = select(Measurement).where(Measurement.device_id.in_(device_ids), *_open(now)).order_by(Measurement.id)
    offers: dict[str, list[TaskOffer]] = {}
    for row in session.scalars(query):
        offers.setdefault(row.device_id, []).append(_offer(row))
    return offers


def open_ids(session: Session, *, now: datetime) -> list[tuple[str, str]]:
    """Measurement and device of all that are open."""
    rows = session.execute(select(Measurement.id, Measurement.device_id).where(*_open(now)))
    return [(measurement_id, device_id) for measurement_id, device_id in rows]


def _open(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (Measurement.state == MeasurementState.ASKED, Measurement.expires_at > now)


def _offer(row: Measurement) -> TaskOffer:
    return TaskOffer(
        task_id=row.id,
        run_id="",
        round=0,
        kind=MEASURE,
        recipe="",
        records_json=Subject(release_id=row.release_id, variant=row.variant).to_json(),
        blobs=(BlobRef(record=ARTIFACT, digest=row.digest, size=row.size),),
        deadline=row.expires_at.timestamp(),
        group_id="",
        message_type="",
        node_id=0,
        # Figures are no arrays.
        max_reply_bytes=0,
    )


def artifacts_of(session: Session, device_id: str, *, now: datetime) -> dict[str, int]:
    """The artifacts that the device is to measure, digest → bytes."""
    query = select(Measurement.digest, Measurement.size).where(Measurement.device_id == device_id, *_open(now))
    return dict(session.execute(query).tuples().all())


def require_asked(session: Session, device_id: str, measurement_id: str, *, lock: bool = False) -> Measurement:
    """The measurement, if this device was asked for it; raises NotFound ``task_unknown``, or like ``require_admitted``."""
    require_admitted(session, device_id)
    row = session.get(Measurement, measurement_id, with_for_update=lock or None)
    if row is None or row.device_id != device_id:
        raise NotFound("task_unknown", f"no task {measurement_id!r} for this device", task_id=measurement_id)
    return row


def receive(session: Session, device_id: str, reply: TaskReply, *, now: datetime) -> bool:
    """Keep a device's answer; True when there was one before, which stays.

    One that comes late counts as any other. Figures that are none are the answer of a device that failed. Raises like
    :func:`require_asked`.
    """
    row = require_asked(session, device_id, reply.task_id, lock=True)
    if row.state != MeasurementState.ASKED:
        return True
    row.answered_at = now
    code, message = reply.error_code, reply.error_message
    if not code:
        try:
            row.metrics = _figures(row, reply).as_json()
        except InvalidInput as error:
            code, message = error.code, error.message
    row.state = MeasurementState.FAILED if code else MeasurementState.DONE
    row.error = {"code": code, "message": message} if code else None
    return False


def _figures(row: Measurement, reply: TaskReply) -> Figures:
    figures = Figures.from_json(records_of(reply.records_json))
    if figures.size != row.size:
        raise InvalidInput("malformed_reply", f"figures of {figures.size} bytes; the artifact has {row.size}")
    return figures
