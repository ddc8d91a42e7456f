"""The tasks of a device, training's and measurements': what is offered, what may be read for it, where an answer goes."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.registry.measurements import offers as measurements
from fogline_server.training import offers as training
from fogline_server.training.offers import UploadTask
from fogline_server.training.tables import Task
from fogline_shared.protocol import TaskOffer, TaskReply


def open_tasks_of(session: Session, device_ids: Collection[str], *, now: datetime) -> dict[str, list[TaskOffer]]:
    """What devices should work on, by device; training first: a round waits for it."""
    tasks = training.open_tasks_of(session, device_ids, now=now)
    for device_id, offered in measurements.open_of(session, device_ids, now=now).items():
        tasks.setdefault(device_id, []).extend(offered)
    return tasks


def open_ids(session: Session, *, now: datetime) -> dict[str, set[str]]:
    """The ids of all open tasks, by device."""
    ids: dict[str, set[str]] = {}
    rows = session.execute(select(Task.id, Task.device_id).where(Task.closed.is_(False))).tuples().all()
    for task_id, device_id in (*rows, *measurements.open_ids(session, now=now)):
        ids.setdefault(device_id, set()).add(task_id)
    return ids


def task_for_upload(session: Session, device_id: str, task_id: str) -> UploadTask:
    """Limits for one reply; raises NotFound ``task_unknown``, or like ``require_admitted``."""
    if measurements.is_measurement(task_id):
        measurements.require_asked(session, device_id, task_id)
        return UploadTask(run_id="", max_reply_bytes=0)
    return training.task_for_upload(session, device_id, task_id)


def receive(session: Session, device_id: str, reply: TaskReply, *, now: datetime) -> bool:
    """Store an answer; True when the task had one before. Raises as the ``receive`` of whose task it is."""
    if measurements.is_measurement(reply.task_id):
        return measurements.receive(session, device_id, reply, now=now)
    return training.receive(session, device_id, reply, now=now)
