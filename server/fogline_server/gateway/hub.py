"""Who is connected to this gateway, and the loops that keep them told.

A ring names devices; only those are looked up. A poll finds what a lost ring would have said, with three queries for
the whole fleet. Leases are extended for everybody at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from itertools import islice

import structlog
from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.devices import service as devices
from fogline_server.gateway.news import Heads, News, heads, news_of, with_contents
from fogline_server.gateway.parts import Parts
from fogline_server.gateway.status import as_known
from fogline_server.jobs.doorbell import DEVICES
from fogline_shared.errors import Conflict, ErrorKind, FoglineError, Unavailable
from fogline_shared.protocol import INLINE_BYTES, CloudFrame, DesiredState, Hello

_QUEUE = 64
_BATCH = 500
_RETRY_S = 0.5

_log = structlog.get_logger()


class Connection:
    """One sync stream: what its device has been told, and what waits to be sent."""

    def __init__(self, device_id: str, greeting: Hello) -> None:
        self.device_id = device_id
        self.boot_id = greeting.boot_id
        self.inline_bytes = greeting.inline_bytes
        self.outgoing: asyncio.Queue[CloudFrame] = asyncio.Queue(_QUEUE)
        # Fails when the coordinator ends the stream.
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._told: DesiredState | None = None
        self._known_tasks = set(greeting.running_tasks)

    def end(self, error: FoglineError) -> None:
        """Let the stream's handler raise ``error``."""
        if not self.ended.done():
            self.ended.set_exception(error)

    def take(self, news: News) -> None:
        """Send what the device has not been told on this stream. What finds the queue full, the next poll finds."""
        if news.refused is not None:
            self.end(news.refused)
            return
        try:
            if news.desired is not None and news.desired != self._told:
                self.outgoing.put_nowait(news.desired)
                self._told = news.desired
            self._known_tasks &= {task.task_id for task in news.tasks}
            for task in news.tasks:
                if task.task_id not in self._known_tasks:
                    self.outgoing.put_nowait(task)
                    self._known_tasks.add(task.task_id)
        except asyncio.QueueFull:
            _log.info("gateway.slow_device", device_id=self.device_id)

    def behind(self, ends: Heads) -> bool:
        """Whether the database may hold something this device was not told."""
        generation = ends.generations.get(self.device_id)
        return (
            self.device_id in ends.revoked
            or (generation is not None and (self._told is None or self._told.generation != generation))
            or not set(ends.open_tasks.get(self.device_id, ())) <= self._known_tasks
        )


class Hub:
    """The connections of one gateway process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._connections: dict[str, Connection] = {}
        self._dirty: set[str] = set()
        self._wake = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self.stopping = False

    def __len__(self) -> int:
        return len(self._connections)

    def start(self) -> None:
        """Start the loops on the running event loop."""
        loops = (self._listen, self._poll, self._deliver, self._extend_leases)
        self._loops = [asyncio.create_task(_survive(loop)) for loop in loops]

    async def stop(self) -> None:
        """End every stream and the loops. Leases stay: the devices come back to another replica, or to the next start."""
        self.stopping = True
        for connection in list(self._connections.values()):
            connection.end(Unavailable("coordinator_stopping", "the coordinator stops; connect again in a moment"))
        running = set(self._loops)
        while running:
            for loop in running:
                loop.cancel()
            # Again until it takes: the Redis client swallows a cancellation that comes while it connects.
            _, running = await asyncio.wait(running, timeout=_RETRY_S)

    def join(self, connection: Connection) -> None:
        """A device has said hello; an older stream of the same device ends."""
        older = self._connections.get(connection.device_id)
        self._connections[connection.device_id] = connection
        if older is not None:
            older.end(Conflict("sync_superseded", "the device has opened a newer stream"))
        self.mark([connection.device_id])

    def leave(self, connection: Connection) -> bool:
        """The stream has ended; True when its device has no newer one here."""
        if self._connections.get(connection.device_id) is not connection:
            return False
        del self._connections[connection.device_id]
        return True

    def mark(self, device_ids: Iterable[str]) -> None:
        """Look at these devices soon."""
        self._dirty.update(device_ids)
        if self._dirty:
            self._wake.set()

    async def _listen(self) -> None:
        async for payload in self._parts.doorbell.listen(DEVICES):
            self.mark(set(payload.split(",")) & self._connections.keys() if payload else self._connections)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(self._parts.options.poll_s)
            if self._connections:
                ends = await self._parts.read(partial(heads, now=utc_now()))
                self.mark(device_id for device_id, each in self._connections.items() if each.behind(ends))

    async def _deliver(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            batch = set(islice(self._dirty, _BATCH))
            self._dirty -= batch
            self.mark(())
            # Should this fail, the poll finds the devices behind.
            limits = {
                device_id: self._connections[device_id].inline_bytes for device_id in batch & self._connections.keys()
            }
            for device_id, news in (await self._parts.read(partial(_look_up, self._parts.blobs, limits))).items():
                if connection := self._connections.get(device_id):
                    connection.take(news)

    async def _extend_leases(self) -> None:
        lease_s = self._parts.options.device_lease_s
        while True:
            await asyncio.sleep(lease_s / 3)
            waiting = iter(list(self._connections))
            while batch := list(islice(waiting, _BATCH)):
                await self._parts.write(partial(_touch, batch, lease_s))


def _look_up(blobs: BlobStore, limits: Mapping[str, int], session: Session) -> dict[str, News]:
    """``limits``: up to which size a device takes a blob inside a message, by device."""
    read: dict[str, bytes] = {}
    return {
        device_id: with_contents(news, blobs, read, limit=min(limits[device_id], INLINE_BYTES))
        for device_id, news in news_of(session, limits, now=utc_now()).items()
    }


def _touch(device_ids: Collection[str], lease_s: float, session: Session) -> None:
    devices.touch(session, *device_ids, now=utc_now(), lease_s=lease_s)


async def _survive(loop: Callable[[], Awaitable[None]]) -> None:
    """Run a loop for ever: a database or Redis that is away for a while must not end it."""
    while True:
        try:
            await loop()
        except Exception as error:  # whatever it was, the next pass starts from the database
            known = as_known(error)
            if known.kind == ErrorKind.INTERNAL:
                _log.exception("gateway.loop_failed", loop=loop.__name__)
            else:
                _log.warning("gateway.loop_failed", loop=loop.__name__, code=known.code, error=str(error))
            await asyncio.sleep(_RETRY_S)
