"""One coordinator process: HTTP, the edge gateway and the reconcile loops on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog
import uvicorn
from fastapi import FastAPI
from sqlalchemy.exc import OperationalError

from fogline_server.gateway.server import GatewayServer
from fogline_shared.errors import FoglineError, Unavailable
from fogline_shared.longevity import settle

log = structlog.get_logger()

# Threads for the gateway's SQL. More would only queue inside the database.
_THREADS = 24
_LONGEST_PAUSE_S = 30.0
_GRACE_S = 3
# Of memory that transfers gave back, in each of the allocator's arenas.
_KEEP_BYTES = 32 << 20


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A reconcile loop: ``run`` is called every ``every_s`` seconds, and may be called at any time on any replica."""

    name: str
    every_s: float
    run: Callable[[], object]


@dataclass(frozen=True, kw_only=True)
class Coordinator:
    """The servers and loops of one process. ``http_port`` must be a port, not 0: devices are told the others."""

    app: FastAPI
    gateway: GatewayServer
    ticks: Sequence[Tick]
    http_host: str
    http_port: int

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, then let requests finish; raises Unavailable ``port_in_use``."""
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(_THREADS, thread_name_prefix="sql"))
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        http = _Http(
            uvicorn.Config(
                self.app, log_config=None, access_log=False, timeout_graceful_shutdown=_GRACE_S, lifespan="on"
            )
        )
        with listen(self.http_host, self.http_port) as listener:
            await self.gateway.start()
            settle(keep_bytes=_KEEP_BYTES)
            try:
                await self._run(http, listener, stop)
            finally:
                await self.gateway.stop(grace=_GRACE_S)

    async def _run(self, http: _Http, listener: socket.socket, stop: asyncio.Event) -> None:
        serving = asyncio.create_task(http.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        with ThreadPoolExecutor(max(1, len(self.ticks)), thread_name_prefix="tick") as threads:
            loops = [asyncio.create_task(run_tick(tick, stop, threads)) for tick in self.ticks]
            log.info(
                "coordinator_started", http=f"{self.http_host}:{self.http_port}", gateway=self.gateway.gateway_target
            )
            try:
                await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
                died = not stop.is_set()
            finally:
                stop.set()
                http.should_exit = True
                await asyncio.gather(serving, stopping, *loops)
        if died:
            raise Unavailable("http_server_stopped", "the HTTP server ended by itself; see the log")


class _Http(uvicorn.Server):
    """Uvicorn without its signal handlers: one signal ends the gateway and the loops as well."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def run_tick(tick: Tick, stop: asyncio.Event, threads: ThreadPoolExecutor) -> None:
    """Call ``tick`` in a thread, over and over, until ``stop``. A failing one is tried more and more rarely."""
    pause_s = tick.every_s
    while not stop.is_set():
        try:
            await asyncio.get_running_loop().run_in_executor(threads, tick.run)
            pause_s = tick.every_s
        except FoglineError as error:
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            log.warning("tick_failed", tick=tick.name, code=error.code, message=error.message, again_in_s=pause_s)
        except OperationalError as error:
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            message = str(error.orig)
            log.warning("tick_failed", tick=tick.name, code="database_unavailable", message=message, again_in_s=pause_s)
        except Exception:  # a loop that ends is a system that stands still
            pause_s = min(_LONGEST_PAUSE_S, pause_s * 2)
            log.exception("tick_crashed", tick=tick.name, again_in_s=pause_s)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), pause_s)


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """A listening TCP socket; raises Unavailable ``port_in_use`` or ``bad_address``."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        # Only takes over what a former process left in TIME_WAIT; a live listener still refuses.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(2048)
        except OSError as error:
            code = "bad_address" if isinstance(error, socket.gaierror) else "port_in_use"
            raise Unavailable(
                code, f"cannot listen on {host}:{port}: {error.strerror}", host=host, port=port
            ) from error
        yield listener
