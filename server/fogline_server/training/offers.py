"""The gateway's side of training: which tasks a device is offered, what becomes of its replies.

The caller owns the transaction and rings ``RUN + run_id`` after :func:`receive` has committed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from fogline_server.devices import service as devices
from fogline_server.devices.tables import Device
from fogline_server.training.tables import Run, Task, Update
from fogline_shared.errors import InvalidInput, NotFound
from fogline_shared.protocol import BlobRef, TaskOffer, TaskReply
from fogline_shared.states import DeviceState, RunState, UpdateVerdict

MAX_RECORDS_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True)
class UploadTask:
    """What the gateway must know of a task before it reads the reply's bytes."""

    run_id: str
    max_reply_bytes: int


def open_tasks(session: Session, device_id: str, *, now: datetime) -> list[TaskOffer]:
    """What the device should work on, oldest first. An unanswered task is offered again at each sync."""
    return open_tasks_of(session, (device_id,), now=now).get(device_id, [])


def open_tasks_of(session: Session, device_ids: Collection[str], *, now: datetime) -> dict[str, list[TaskOffer]]:
    """The same for many devices, by device; those without a task are left out."""
    statement = (
        select(Task, Run.spec)
        .join(Run, Run.id == Task.run_id)
        .where(Task.device_id.in_(device_ids), Task.closed.is_(False), Task.deadline > now)
        # A round that was open when its run was paused is finished.
        .where(Run.state.in_((RunState.RUNNING, RunState.PAUSED)))
        .order_by(Task.created_at, Task.id)
    )
    tasks: dict[str, list[TaskOffer]] = {}
    for task, spec in session.execute(statement):
        tasks.setdefault(task.device_id, []).append(_offer(task, spec))
    return tasks


def _offer(task: Task, spec: Mapping[str, Any]) -> TaskOffer:
    return TaskOffer(
        task_id=task.id,
        run_id=task.run_id,
        round=task.round,
        kind=task.kind,
        recipe=task.recipe,
        records_json=json.dumps(task.records),
        blobs=tuple(BlobRef(**blob) for blob in task.blobs),
        deadline=task.deadline.timestamp(),
        group_id=task.group_id,
        message_type=task.message_type,
        node_id=task.node_id,
        max_reply_bytes=task.max_reply_bytes,
        eligibility_json=json.dumps(spec.get("eligibility", {})),
    )


def task_for_upload(session: Session, device_id: str, task_id: str) -> UploadTask:
    """Limits for one reply; raises NotFound ``task_unknown`` when the device was never given that task, or like ``require_admitted``."""
    statement = select(Task.run_id, Task.max_reply_bytes).where(*_of_admitted(device_id, task_id))
    task = session.execute(statement).one_or_none()
    if task is None:
        raise _refusal(session, device_id, task_id)
    return UploadTask(run_id=task.run_id, max_reply_bytes=task.max_reply_bytes)


def reads(session: Session, device_id: str, digest: str) -> bool:
    """Whether an open task of the device reads that blob."""
    statement = select(Task.blobs).where(Task.device_id == device_id, Task.closed.is_(False))
    return any(blob["digest"] == digest for blobs in session.scalars(statement) for blob in blobs)


def receive(session: Session, device_id: str, reply: TaskReply, *, now: datetime) -> bool:
    """Store a reply whose blob is stored already; True when the task had been answered before.

    The first reply counts. One that comes after its round closed is kept as LATE and counts for nothing. Records that
    are not records are an answer too, of a device that failed: refusing them would have it try for ever.
    Raises NotFound ``task_unknown``, InvalidInput ``reply_too_large``, or like ``require_admitted``.
    """
    # The row lock orders this against the trainer closing the round: a reply is in before, or late after.
    task = _locked_task_of(session, device_id, reply.task_id)
    # An answer closes its task: there is none to an open one.
    known = session.get(Update, reply.task_id) if task.closed else None
    if known is not None:
        known.duplicates += 1
        return True
    if reply.size > task.max_reply_bytes:
        raise InvalidInput("reply_too_large", f"{reply.size} bytes where {task.max_reply_bytes} are allowed")
    code, reason = reply.error_code, reply.error_message
    try:
        records = records_of(reply.records_json)
    except InvalidInput as error:
        records, code, reason = {}, error.code, error.message
    late = task.closed or task.deadline <= now
    session.add(
        Update(
            task_id=task.id,
            digest=reply.digest,
            size=reply.size,
            records=records,
            verdict=UpdateVerdict.LATE if late else None,
            code="round_over" if late else code,
            reason="the round had closed" if late else reason,
            received_at=now,
        )
    )
    task.closed = True
    if task.kind == "train" and not reply.error_code:
        devices.trained(session, device_id, now=now)
    return False


def _locked_task_of(session: Session, device_id: str, task_id: str) -> Task:
    statement = select(Task).where(*_of_admitted(device_id, task_id)).with_for_update(of=Task)
    task = session.scalars(statement).one_or_none()
    if task is None:
        raise _refusal(session, device_id, task_id)
    return task


def _of_admitted(device_id: str, task_id: str) -> tuple[ColumnElement[bool], ...]:
    """That task, if the device it is for may still speak: one question in place of two."""
    mine = (Task.id == task_id, Task.device_id == device_id)
    return (*mine, Device.id == Task.device_id, Device.state != DeviceState.REVOKED)


def _refusal(session: Session, device_id: str, task_id: str) -> NotFound:
    """Why there is no such task; raises like ``require_admitted`` when it is for the device itself."""
    devices.require_admitted(session, device_id)
    return NotFound("task_unknown", f"no task {task_id!r} for this device", task_id=task_id)


def records_of(text: str) -> dict[str, Any]:
    """The records of a reply; raises InvalidInput ``malformed_reply``."""
    if len(text) > MAX_RECORDS_BYTES:
        raise InvalidInput("malformed_reply", f"records of {len(text)} bytes; at most {MAX_RECORDS_BYTES} are allowed")
    try:
        # NaN and Infinity are Python's own addition to JSON; PostgreSQL refuses them, and so does admission.
        records: Any = json.loads(text or "{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("malformed_reply", f"records are not JSON: {error}") from error
    if not isinstance(records, dict) or "\\u0000" in text:
        raise InvalidInput("malformed_reply", "records are a JSON object without NUL characters")
    return records


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
