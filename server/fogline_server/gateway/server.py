"""The edge gateway: two TLS ports and the loops behind them, on the caller's event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.devices.authority import CertificateAuthority
from fogline_server.gateway.edge import Edge, handlers
from fogline_server.gateway.enrollment import Enrollment
from fogline_server.gateway.hub import Hub
from fogline_server.gateway.infer import Teacher
from fogline_server.gateway.parts import GatewayOptions, Parts
from fogline_server.gateway.sync import SyncStream
from fogline_server.gateway.transfer import CHUNK, Transfer
from fogline_server.jobs.doorbell import Doorbell
from fogline_shared.enrollment import MAX_CSR_BYTES, MAX_TOKEN_CHARS
from fogline_shared.errors import Unavailable
from fogline_shared.proto.edge_pb2_grpc import add_EnrollmentServicer_to_server

_KEEPALIVE = (
    # A second server on the same port must fail, not share it.
    ("grpc.so_reuseport", 0),
    # A peer that vanished without a word is noticed within 40 s.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
)
_ENROLLMENTS_AT_ONCE = 64


class GatewayServer:
    """Serves devices. ``gateway_port`` and ``enroll_port`` are the bound ports once :meth:`start` has returned."""

    def __init__(
        self,
        *,
        db: Database,
        blobs: BlobStore,
        doorbell: Doorbell,
        authority: CertificateAuthority,
        options: GatewayOptions,
    ) -> None:
        self._parts = Parts(db=db, blobs=blobs, doorbell=doorbell, authority=authority, options=options)
        self._hub = Hub(self._parts)
        self._transfer = Transfer(self._parts)
        self._teacher = Teacher(self._parts)
        self._servers: list[Any] = []
        self.gateway_port = 0
        self.enroll_port = 0

    @property
    def gateway_target(self) -> str:
        """``host:port`` devices connect to with their certificate."""
        return f"{self._parts.options.advertised_host}:{self.gateway_port}"

    @property
    def enroll_target(self) -> str:
        """``host:port`` devices enrol at."""
        return f"{self._parts.options.advertised_host}:{self.enroll_port}"

    async def start(self) -> None:
        """Bind both ports and serve; raises Unavailable ``port_in_use``, and then nothing is left open."""
        key, certificate = self._parts.authority.server_key_cert()
        mutual = grpc.ssl_server_credentials([(key, certificate)], self._parts.authority.ca_pem, True)
        plain = grpc.ssl_server_credentials([(key, certificate)])
        options = self._parts.options
        edge = grpc.aio.server(options=(*_KEEPALIVE, ("grpc.max_receive_message_length", 4 * CHUNK)))
        enrollment = grpc.aio.server(
            options=(*_KEEPALIVE, ("grpc.max_receive_message_length", 2 * (MAX_TOKEN_CHARS + MAX_CSR_BYTES))),
            maximum_concurrent_rpcs=_ENROLLMENTS_AT_ONCE,
        )
        self._servers = [edge, enrollment]
        try:
            self.gateway_port = _bind(edge, options.host, options.gateway_port, mutual)
            self.enroll_port = _bind(enrollment, options.host, options.enroll_port, plain)
        except Unavailable:
            await self.stop(grace=0)
            raise
        sync = SyncStream(self._parts, self._hub)
        servicer = Edge(self._parts, self.gateway_target, sync=sync, transfer=self._transfer, teacher=self._teacher)
        edge.add_generic_rpc_handlers((handlers(servicer),))
        add_EnrollmentServicer_to_server(Enrollment(self._parts, self.gateway_target), enrollment)
        self._hub.start()
        await asyncio.gather(edge.start(), enrollment.start())

    async def stop(self, grace: float | None = 2.0) -> None:
        """End the streams, let calls finish for ``grace`` seconds, close the ports. Safe to call twice."""
        await self._hub.stop()
        await asyncio.gather(*(server.stop(grace) for server in self._servers))
        self._servers = []
        await asyncio.to_thread(self._transfer.close)
        await asyncio.to_thread(self._teacher.close)


def _bind(server: Any, host: str, port: int, credentials: Any) -> int:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        bound = int(server.add_secure_port(address, credentials))
    except RuntimeError as error:
        raise Unavailable("port_in_use", f"{address} cannot be bound; is it in use?", host=host, port=port) from error
    if bound == 0:
        raise Unavailable("port_in_use", f"{address} cannot be bound; is it in use?", host=host, port=port)
    return bound
