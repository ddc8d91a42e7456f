"""The sync stream: a device's frames go into use cases, the hub's frames go to the device."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import structlog
from sqlalchemy.orm import Session

from fogline_server.db.base import utc_now
from fogline_server.devices import service as devices
from fogline_server.gateway.hub import Connection, Hub
from fogline_server.gateway.parts import Parts
from fogline_server.gateway.status import as_known
from fogline_server.jobs.doorbell import EVENTS
from fogline_server.rollouts import reports
from fogline_server.telemetry import ingest
from fogline_server.telemetry.drift import DriftLimit
from fogline_shared.errors import ErrorKind, InvalidInput
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.protocol import INLINE_BYTES, Ack, DeviceFrame, Hello, Pace, Report, TelemetryWindow
from fogline_shared.wire import cloud_frame_to_pb, device_frame_from_pb

# A frame refused for one of these reasons will be refused whenever it is sent again.
_HOPELESS = {ErrorKind.INVALID, ErrorKind.NOT_FOUND, ErrorKind.CONFLICT, ErrorKind.CORRUPT}
# After a restart a fleet may come back at this rate, devices a second.
_RECONNECT_RATE = 250

_log = structlog.get_logger()


class SyncStream:
    """Serves the sync streams of one gateway process."""

    def __init__(self, parts: Parts, hub: Hub) -> None:
        self._parts = parts
        self._hub = hub

    async def serve(self, device_id: str, frames: AsyncIterator[pb.DeviceFrame], context: Any) -> None:
        """One stream from hello to end; raises the FoglineError the call is to end with."""
        greeting = await self._greeting(frames)
        lease_s = self._parts.options.device_lease_s
        await self._parts.write(
            lambda session: devices.hello(session, device_id, greeting, now=utc_now(), lease_s=lease_s), EVENTS
        )
        connection = Connection(device_id, greeting)
        connection.outgoing.put_nowait(self._pace())
        self._hub.join(connection)
        try:
            await self._converse(connection, frames, context)
        finally:
            if self._hub.leave(connection) and not self._hub.stopping:
                # Shielded: a canceled call must not leave its device online.
                await asyncio.shield(self._parts.write(partial(_disconnected, connection), EVENTS))

    async def _greeting(self, frames: AsyncIterator[pb.DeviceFrame]) -> Hello:
        async with asyncio.timeout(self._parts.options.idle_s):
            first = await anext(frames, None)
        greeting = None if first is None else device_frame_from_pb(first)
        if not isinstance(greeting, Hello):
            raise InvalidInput("malformed_frame", "a sync stream begins with a hello")
        return greeting

    def _pace(self) -> Pace:
        return Pace(
            reconnect_min_s=0.2,
            reconnect_max_s=max(2.0, len(self._hub) / _RECONNECT_RATE),
            telemetry_every_s=self._parts.options.telemetry_every_s,
            inline_bytes=INLINE_BYTES,
        )

    async def _converse(self, connection: Connection, frames: AsyncIterator[pb.DeviceFrame], context: Any) -> None:
        """Read and write until the device closes, either fails, or the hub ends the stream."""
        reader = asyncio.create_task(self._read(connection, frames))
        writer = asyncio.create_task(_write(connection, context))
        parts = (reader, writer, connection.ended)
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
        finally:
            finished = [part for part in parts if part.done()]
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        for part in finished:
            part.result()

    async def _read(self, connection: Connection, frames: AsyncIterator[pb.DeviceFrame]) -> None:
        async for message in frames:
            seq = _seq_of(message)
            try:
                frame = device_frame_from_pb(message)
                await self._parts.write(
                    partial(_take, connection.device_id, frame, self._parts.options.drift), *_channels(frame)
                )
                if isinstance(frame, Report):
                    # It may have changed what the device should run.
                    self._hub.mark([connection.device_id])
            except Exception as error:
                known = as_known(error)
                if seq is None or known.kind not in _HOPELESS:
                    raise
                # Acknowledged all the same, or the device would send it for ever and nothing behind it.
                _log.warning("gateway.frame_refused", device_id=connection.device_id, seq=seq, error=str(known))
            if seq is not None:
                await connection.outgoing.put(Ack(seq=seq))


async def _write(connection: Connection, context: Any) -> None:
    while True:
        await context.write(cloud_frame_to_pb(await connection.outgoing.get()))


def _seq_of(message: pb.DeviceFrame) -> int | None:
    """The frame's number in its device's one sequence of reports and telemetry; other frames have none."""
    match message.WhichOneof("body"):
        case "report":
            return message.report.seq
        case "telemetry":
            return message.telemetry.seq
        case _:
            return None


def _channels(frame: DeviceFrame) -> tuple[str, ...]:
    tells = isinstance(frame, Report) or (isinstance(frame, TelemetryWindow) and bool(frame.drift))
    return (EVENTS,) if tells else ()


def _take(device_id: str, frame: DeviceFrame, drift_limit: DriftLimit, session: Session) -> None:
    devices.require_admitted(session, device_id)
    match frame:
        case Report():
            reports.take(session, device_id, frame, now=utc_now())
        case TelemetryWindow():
            ingest.ingest(session, device_id, frame, now=utc_now(), drift_limit=drift_limit)
        case Hello():
            raise InvalidInput("malformed_frame", "a stream has one hello, its first frame")
        case _:
            devices.set_attributes(session, device_id, frame)


def _disconnected(connection: Connection, session: Session) -> None:
    devices.disconnected(session, connection.device_id, connection.boot_id, now=utc_now())
