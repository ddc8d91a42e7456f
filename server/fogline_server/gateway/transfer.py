"""Blobs over the gateway: downloads that resume, uploads that count once."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

import structlog
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from fogline_server.db.base import utc_now
from fogline_server.devices.service import require_admitted
from fogline_server.gateway import deltas, work
from fogline_server.gateway.parts import Parts
from fogline_server.jobs.doorbell import RUN
from fogline_server.rollouts import desired
from fogline_server.training import offers
from fogline_server.training.offers import UploadTask
from fogline_server.trust import store
from fogline_shared.errors import Exhausted, FoglineError, InvalidInput, NotFound, Unavailable
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.protocol import INLINE_BYTES, TaskReply
from fogline_shared.wire import reply_from_pb

CHUNK = 1 << 20
# What a message of an upload holds; None: nothing.
UploadPart = pb.UploadHeader | memoryview | None
_END: Final = object()
_log = structlog.get_logger()
# Bytes of a refused upload that are read and dropped at most.
_DRAIN = 64 * CHUNK


class Transfer:
    """Serves Fetch and Upload. ``close`` waits for uploads that are being written."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._writers = ThreadPoolExecutor(parts.options.uploads, thread_name_prefix="upload")

    async def fetch(self, device_id: str, request: pb.FetchRequest, context: Any) -> None:
        """Send a blob the device may read, from an offset. Raises NotFound ``blob_not_found``, InvalidInput ``bad_offset``."""
        chunks = await self._parts.read(partial(self._open, device_id, request.digest, request.offset))
        sent = 0
        try:
            for data in chunks.first:
                await context.write(data)
                sent += len(data)
            while data := await asyncio.to_thread(next, chunks.rest, b""):
                await context.write(data)
                sent += len(data)
        finally:
            if chunks.assignment_id and sent:
                # Shielded: the bytes were sent, also to a device that has hung up.
                await asyncio.shield(self._count(chunks.assignment_id, sent))

    async def _count(self, assignment_id: str, sent: int) -> None:
        try:
            await self._parts.write(lambda session: desired.count_sent(session, assignment_id, sent))
        except OperationalError as error:  # the device has its bytes; a count is not worth another download
            _log.warning("gateway.bytes_not_counted", assignment_id=assignment_id, error=str(error.orig))

    def _open(self, device_id: str, digest: str, offset: int, session: Session) -> _Chunks:
        """Check who asks, and read a first piece: a small blob is then read wholly, in one visit to a thread."""
        assignment_id = _may_read(device_id, digest, session)
        size = self._parts.blobs.size(digest)
        if offset > size:
            raise InvalidInput("bad_offset", f"offset {offset} of a blob of {size} bytes", size=size)
        rest = self._parts.blobs.chunks(digest, offset, chunk=CHUNK)
        first = list(islice(rest, 1))
        rest = rest if size - offset > CHUNK else iter(())
        return _Chunks(first=first, rest=rest, assignment_id=assignment_id)

    async def upload(self, device_id: str, messages: AsyncIterator[UploadPart]) -> pb.UploadReceipt:
        """Store a reply's blob, then the reply; a second time changes nothing and says so.

        Raises NotFound ``task_unknown``; Exhausted ``reply_too_large``, ``blob_too_large``, ``disk_full``; Corrupt
        ``digest_mismatch``; InvalidInput ``size_mismatch``, ``malformed_frame``. Nothing is stored on an error.
        """
        try:
            return await self._upload(device_id, messages)
        except FoglineError:
            await self._drain(messages)
            raise

    async def _upload(self, device_id: str, messages: AsyncIterator[UploadPart]) -> pb.UploadReceipt:
        header = await self._header(messages)
        reply = reply_from_pb(header)
        if header.data:
            duplicate = await asyncio.to_thread(self._take, device_id, reply, header.data)
            return pb.UploadReceipt(duplicate=duplicate, status="ACCEPTED")
        task = await self._parts.read(partial(_task, device_id, reply))
        receive = partial(self._receive, device_id, task.run_id, reply)
        if reply.digest:
            duplicate = await self._store(messages, partial(self._keep, reply, task.max_reply_bytes, receive))
        else:
            duplicate = await asyncio.to_thread(receive)
        return pb.UploadReceipt(duplicate=duplicate, status="ACCEPTED")

    def _take(self, device_id: str, reply: TaskReply, data: bytes) -> bool:
        """A reply whose blob came with its header, in one visit to a thread."""
        if not reply.digest or len(data) > INLINE_BYTES:
            raise InvalidInput("malformed_frame", f"a header has the data of its digest, at most {INLINE_BYTES} bytes")
        with self._parts.db.read() as session:
            task = _task(device_id, reply, session)
        receive = partial(self._receive, device_id, task.run_id, reply)
        return self._keep(reply, task.max_reply_bytes, receive, iter((memoryview(data),)))

    def _keep(self, reply: TaskReply, limit: int, receive: Callable[[], bool], feed: Iterator[memoryview]) -> bool:
        """Write the blob, then the reply, in one visit to a thread."""
        blob = self._parts.blobs.put(feed, expect=reply.digest, limit=limit)
        if blob.size != reply.size:
            raise InvalidInput("size_mismatch", f"{blob.size} bytes came where {reply.size} were announced")
        return receive()

    def _receive(self, device_id: str, run_id: str, reply: TaskReply) -> bool:
        """Commit the reply, then ring, even if its device has hung up meanwhile; True when it was here before."""
        with self._parts.db.transaction() as session:
            duplicate = work.receive(session, device_id, reply, now=utc_now())
        if run_id:
            self._parts.doorbell.ring(RUN + run_id)
        return duplicate

    async def _drain(self, messages: AsyncIterator[UploadPart]) -> None:
        """Read on for a while: a Python client that is still sending when its call ends sees INTERNAL, not our code."""
        left = _DRAIN
        with suppress(TimeoutError):
            async with asyncio.timeout(self._parts.options.idle_s):
                while left > 0 and (part := await anext(messages, _END)) is not _END:
                    left -= len(part) if isinstance(part, memoryview) else 0

    def close(self) -> None:
        """Let no more uploads begin and wait for the ones being written."""
        self._writers.shutdown(wait=True, cancel_futures=True)

    async def _header(self, messages: AsyncIterator[UploadPart]) -> pb.UploadHeader:
        async with asyncio.timeout(self._parts.options.idle_s):
            first = await anext(messages, None)
        if not isinstance(first, pb.UploadHeader):
            raise InvalidInput("malformed_frame", "an upload begins with its header")
        return first

    async def _store(self, messages: AsyncIterator[UploadPart], keep: Callable[[_Feed], bool]) -> bool:
        """What ``keep`` returns, which is given the data in a thread."""
        loop = asyncio.get_running_loop()
        feed = _Feed(loop)
        stored = loop.run_in_executor(self._writers, keep, feed)
        stored.add_done_callback(feed.consumer_is_gone)
        try:
            while (data := await self._data(messages)) is not None and not stored.done():
                await feed.put(data)
            feed.finish()
            return await stored
        except BaseException:
            feed.abandon()
            raise

    async def _data(self, messages: AsyncIterator[UploadPart]) -> memoryview | None:
        async with asyncio.timeout(self._parts.options.idle_s):
            part = await anext(messages, _END)
        if part is _END:
            return None
        if not isinstance(part, memoryview):
            raise InvalidInput("malformed_frame", "after its header an upload is data")
        return part


@dataclass(frozen=True, kw_only=True)
class _Chunks:
    """A blob's pieces: ``first`` in memory, ``rest`` still to be read; the assignment they are counted for, if any."""

    first: Sequence[bytes]
    rest: Iterator[bytes]
    assignment_id: str


class _Feed(Iterator[memoryview]):
    """Chunks from the event loop to a thread, at most four ahead."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._room = asyncio.Semaphore(4)
        # None: the end; an exception: the sender is gone.
        self._items: queue.SimpleQueue[memoryview | Exception | None] = queue.SimpleQueue()

    async def put(self, data: memoryview) -> None:
        await self._room.acquire()
        self._items.put(data)

    def finish(self) -> None:
        self._items.put(None)

    def abandon(self) -> None:
        """Let the thread give up, so that it removes what it has written."""
        self._items.put(Unavailable("upload_broken", "the upload ended early"))

    def consumer_is_gone(self, stored: asyncio.Future[bool]) -> None:
        """Wake a sender that waits for room: there will be none."""
        self._room.release()
        if not stored.cancelled():
            # Somebody looks at it, so that an abandoned upload is no "exception never retrieved".
            stored.exception()

    def __next__(self) -> memoryview:
        item = self._items.get()
        if isinstance(item, Exception):
            raise item
        if item is None:
            raise StopIteration
        self._loop.call_soon_threadsafe(self._room.release)
        return item


def metadata(device_id: str, name: str, session: Session) -> bytes:
    """Signed metadata for a device that is admitted; raises as :func:`fogline_server.trust.store.document` does."""
    require_admitted(session, device_id)
    return store.document(session, name)


def _may_read(device_id: str, digest: str, session: Session) -> str:
    """The assignment that a blob is read for; empty: a task of training or a measurement."""
    require_admitted(session, device_id)
    if offers.reads(session, device_id, digest):
        return ""
    assignment_id = deltas.assignment_reading(session, device_id, digest)
    if assignment_id is None:
        if deltas.measurement_reading(session, device_id, digest):
            return ""
        # The same answer as for a blob that does not exist: what exists is nobody's business.
        raise NotFound("blob_not_found", f"no blob {digest[:80]!r} for this device")
    return assignment_id


def _task(device_id: str, reply: TaskReply, session: Session) -> UploadTask:
    """What the reply is to; raises Exhausted ``reply_too_large`` beside what :func:`work.task_for_upload` does."""
    task = work.task_for_upload(session, device_id, reply.task_id)
    if reply.size > task.max_reply_bytes:
        message = f"{reply.size} bytes where {task.max_reply_bytes} are allowed"
        raise Exhausted("reply_too_large", message, limit=task.max_reply_bytes)
    return task
