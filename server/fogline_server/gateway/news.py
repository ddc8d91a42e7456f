"""What the database has to tell connected devices, asked for many devices at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.devices.service import require_admitted
from fogline_server.devices.tables import Device
from fogline_server.gateway import work
from fogline_server.rollouts import desired
from fogline_server.rollouts.tables import Desired
from fogline_shared.errors import FoglineError
from fogline_shared.measurement import MEASURE
from fogline_shared.protocol import DesiredState, TaskOffer
from fogline_shared.states import DeviceState


@dataclass(frozen=True, kw_only=True)
class News:
    """All that one device may have to be told. ``refused``: why it may not be connected any more."""

    desired: DesiredState | None = None
    tasks: Sequence[TaskOffer] = ()
    refused: FoglineError | None = None


def news_of(session: Session, device_ids: Collection[str], *, now: datetime) -> dict[str, News]:
    """The present truth for each device, in a few queries whatever their number."""
    # Held until the end: the session finds them again without asking.
    known = session.scalars(select(Device).where(Device.id.in_(device_ids))).all()
    wanted = desired.desired_of(session, device_ids)
    tasks = work.open_tasks_of(session, device_ids, now=now)
    news = {}
    for device_id in device_ids:
        try:
            require_admitted(session, device_id)
        except FoglineError as error:
            news[device_id] = News(refused=error)
        else:
            news[device_id] = News(desired=wanted.get(device_id), tasks=tasks.get(device_id, ()))
    del known
    return news


def with_contents(news: News, blobs: BlobStore, read: dict[str, bytes], *, limit: int) -> News:
    """The same, with blobs of up to ``limit`` bytes beside the tasks that read them. ``read``: by digest, what has been read before.

    A device asks for what it measures: it may hold it, or have measured it before.
    """
    tasks = []
    for task in news.tasks:
        small = [blob.digest for blob in task.blobs if blob.size <= limit and task.kind != MEASURE]
        for digest in small:
            # A device that finds a blob missing asks for it, and is told.
            if digest not in read and blobs.exists(digest):
                read[digest] = blobs.path(digest).read_bytes()
        tasks.append(replace(task, contents={digest: read[digest] for digest in small if digest in read}))
    return replace(news, tasks=tasks)


@dataclass(frozen=True, kw_only=True)
class Heads:
    """The ends of everything that can be new, for the whole fleet, in a few queries whatever its size."""

    open_tasks: Mapping[str, Collection[str]]
    generations: Mapping[str, int]
    revoked: Collection[str]


def heads(session: Session, *, now: datetime) -> Heads:
    """Open task ids and desired generation by device, and who is revoked."""
    generations = {
        row.device_id: row.generation for row in session.execute(select(Desired.device_id, Desired.generation))
    }
    revoked = session.scalars(select(Device.id).where(Device.state == DeviceState.REVOKED)).all()
    return Heads(open_tasks=work.open_ids(session, now=now), generations=generations, revoked=frozenset(revoked))
