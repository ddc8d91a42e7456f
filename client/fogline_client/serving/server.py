"""Serve the local protocol inside the caller's event loop: HTTP on sockets that are bound, gRPC if that is given."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fogline_client.inference.predictor import Predictor
from fogline_client.serving.app import InferenceApp
from fogline_client.serving.http import HttpServer
from fogline_client.serving.options import ServingOptions
from fogline_client.serving.scheduler import Scheduler
from fogline_client.serving.sockets import BACKLOG, open_sockets

if TYPE_CHECKING:  # an agent that serves no gRPC does not load its server
    from fogline_client.serving.rpc import GrpcEndpoint

# For what is being answered when the serving ends.
_GRACE_S = 2.0


async def serve(
    predictor: Predictor,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    uds_path: Path | None = None,
    ready: asyncio.Event | None = None,
    options: ServingOptions | None = None,
) -> None:
    """Serve until cancelled: over TCP when ``port`` is given (0: any), over a unix socket when ``uds_path`` is.

    Sets ``ready`` once both accept. Raises Conflict ``port_in_use``, InvalidInput ``socket_path_too_long``,
    Unavailable ``cannot_listen`` before anything is served.
    """
    sockets = open_sockets(host=host, port=port, uds_path=uds_path)
    await serve_sockets(predictor, sockets, uds_path=uds_path, ready=ready, options=options)


async def serve_sockets(
    predictor: Predictor,
    sockets: list[socket.socket],
    *,
    uds_path: Path | None = None,
    ready: asyncio.Event | None = None,
    options: ServingOptions | None = None,
    grpc: GrpcEndpoint | None = None,
    more_metrics: Callable[[], str] = str,
) -> None:
    """:func:`serve` on sockets that are already bound, for a caller that must know its port first; and on ``grpc``.

    ``more_metrics``: what else ``/metrics`` tells, in Prometheus' format.
    """
    options = options or ServingOptions()
    scheduler = Scheduler(predictor, options)
    app = InferenceApp(predictor, scheduler)
    http = HttpServer(app, options)
    app.connections, app.more_metrics = http.__len__, more_metrics
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        # What stands last goes first: no new connections, then those that are there, then what answers them.
        stack.push_async_callback(scheduler.close)
        if uds_path is not None:
            stack.callback(uds_path.unlink, missing_ok=True)
        stack.push_async_callback(http.close, _GRACE_S)
        for listener in sockets:
            listening = await _listen(loop, http, listener)
            stack.callback(listening.close)
        if grpc is not None:
            stack.push_async_callback(grpc.stop, _GRACE_S)
            await grpc.start(predictor, scheduler)
        if ready is not None:
            ready.set()
        await asyncio.Event().wait()


async def _listen(loop: asyncio.AbstractEventLoop, http: HttpServer, listener: socket.socket) -> asyncio.AbstractServer:
    if listener.family == socket.AF_UNIX:
        return await loop.create_unix_server(http, sock=listener, backlog=BACKLOG)
    return await loop.create_server(http, sock=listener, backlog=BACKLOG)
