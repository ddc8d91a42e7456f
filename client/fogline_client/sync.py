"""The stream to the coordinator: hello, reports and telemetry out; desired state, tasks, pace and acks in.

Everything that matters is on disk before it is sent and stays there until it is acknowledged, so a stream may break at any
moment. Reconnects are jittered; the coordinator dictates the window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import grpc
import structlog

from fogline_client import channel, transfer
from fogline_client.identity import Identity
from fogline_client.telemetry.spool import Spool
from fogline_shared import wire
from fogline_shared.backoff import full_jitter
from fogline_shared.errors import FoglineError, Unavailable
from fogline_shared.proto.edge_pb2_grpc import EdgeStub
from fogline_shared.protocol import (
    Ack,
    CloudFrame,
    DeltaStep,
    DesiredState,
    DeviceFrame,
    Hello,
    Pace,
    Scalar,
    TaskOffer,
    TaskReply,
)

log = structlog.get_logger()

DEFAULT_PACE = Pace(reconnect_min_s=0.0, reconnect_max_s=2.0, telemetry_every_s=10.0)
# The longest wait between two attempts, when the coordinator stays away.
_LONGEST_WAIT_S = 60.0
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class SyncParts:
    """What the stream carries, and where what arrives goes. The callbacks run on the event loop and must not block."""

    identity: Callable[[], Identity]
    hello: Callable[[], Hello]
    # What the device tells of itself by now; sent again when it is not what was sent last.
    facts: Callable[[], Mapping[str, Scalar]]
    spool: Spool
    on_desired: Callable[[DesiredState], None]
    on_task: Callable[[TaskOffer], None]
    rng: Random


class Sync:
    """One connection at a time, for ever."""

    def __init__(self, parts: SyncParts) -> None:
        self._p = parts
        self.pace = DEFAULT_PACE
        self.online = asyncio.Event()
        self.last_error: FoglineError | None = None
        self._channel: grpc.aio.Channel | None = None
        self._wake = asyncio.Event()
        self._drop = asyncio.Event()

    def wake(self) -> None:
        """There is something new in the spool, or among the facts. Call on the event loop."""
        self._wake.set()

    def reconnect(self) -> None:
        """Drop the connection, for a new certificate; :meth:`run` opens the next. Transfers under way are resumed."""
        self._drop.set()

    async def run(self) -> None:
        """Connect, exchange frames, lose the connection, wait, again."""
        waits = self._waits()
        while True:
            self._channel = channel.mutual_tls(self._p.identity())
            try:
                await self._session(self._channel)
                self.last_error = None
            except FoglineError as error:
                self._note(error)
            finally:
                if self.online.is_set():
                    self.online.clear()
                    waits = self._waits()
                await self._channel.close()
            await asyncio.sleep(next(waits))

    async def fetch(self, digest: str, size: int, target: Path, *, flush: bool = True) -> None:
        """:func:`transfer.fetch` over the open connection; waits for one."""
        await transfer.fetch(await self._connection(), digest, size, target, flush=flush)

    async def deltas(self, target: str, held: Sequence[str]) -> list[DeltaStep]:
        """:func:`transfer.deltas` over the open connection; waits for one."""
        return await transfer.deltas(await self._connection(), target, held)

    async def metadata(self, name: str) -> bytes | None:
        """:func:`transfer.metadata` over the open connection; waits for one."""
        return await transfer.metadata(await self._connection(), name)

    async def upload(self, reply: TaskReply, blob: Path | None) -> bool:
        """:func:`transfer.upload` over the open connection; waits for one."""
        return await transfer.upload(await self._connection(), reply, blob, inline_bytes=self.pace.inline_bytes)

    async def _connection(self) -> grpc.aio.Channel:
        await self.online.wait()
        if self._channel is None:
            raise Unavailable("offline", "there is no connection to the coordinator")
        return self._channel

    def _waits(self) -> Iterator[float]:
        spread = max(self.pace.reconnect_max_s - self.pace.reconnect_min_s, 0.1)
        for wait_s in full_jitter(self._p.rng, base_s=spread, cap_s=max(spread, _LONGEST_WAIT_S)):
            yield self.pace.reconnect_min_s + wait_s

    async def _session(self, open_channel: grpc.aio.Channel) -> None:
        """One stream, until either side ends it; raises what ended it, None for a clean end."""
        self._drop.clear()
        call = EdgeStub(open_channel).Sync()
        ends = [asyncio.create_task(end) for end in (self._receive(call), self._send(call), self._drop.wait())]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            # The receiver first: it knows the status that the sender only suffers from.
            ended = [end for end in ends if end.done()]
        finally:
            call.cancel()
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
        for end in ended:
            end.result()

    async def _receive(self, call: grpc.aio.StreamStreamCall) -> None:
        while True:
            with channel.translated():
                message = await call.read()
            if message is grpc.aio.EOF:
                return
            self._take(wire.cloud_frame_from_pb(message))
            self.online.set()

    async def _send(self, call: grpc.aio.StreamStreamCall) -> None:
        greeting = self._p.hello()
        await _write(call, greeting)
        sent, told = 0, greeting.attributes
        while True:
            self._wake.clear()
            if (facts := self._p.facts()) != told:
                await _write(call, facts)
                told = facts
            batch = await asyncio.to_thread(self._p.spool.pending, after=sent, limit=_BATCH)
            for frame in batch:
                await _write(call, frame)
                sent = frame.seq
            if not batch:
                await self._wake.wait()

    def _take(self, frame: CloudFrame) -> None:
        match frame:
            case DesiredState():
                self._p.on_desired(frame)
            case TaskOffer():
                self._p.on_task(frame)
            case Pace():
                self.pace = frame
            case Ack():
                self._p.spool.ack(frame.seq)

    def _note(self, error: FoglineError) -> None:
        """Log a change of reason once, not at every attempt."""
        if self.last_error is None or self.last_error.code != error.code:
            log.warning("not connected", code=error.code, reason=error.message)
        self.last_error = error


async def _write(call: grpc.aio.StreamStreamCall, frame: DeviceFrame) -> None:
    with channel.translated():
        await call.write(wire.device_frame_to_pb(frame))
