"""HTTP/1.1 on the agent's own event loop: all connections of an endpoint, and what they may cost together.

A server for any application would cost more than most models take: this one knows that there is one, that its answers are
short, and that it must be able to refuse before it has read.
"""

from __future__ import annotations

import asyncio
import contextlib
import time

from fogline_client.serving.arrivals import Arrivals
from fogline_client.serving.connection import HttpConnection
from fogline_client.serving.exchange import Application
from fogline_client.serving.options import ServingOptions
from fogline_client.serving.refusals import Refusals

# How often slow and silent peers are looked for.
_SWEEP_S = 0.5


class HttpServer:
    """All connections of an endpoint, and what they hold together."""

    def __init__(self, application: Application, options: ServingOptions) -> None:
        self.application = application
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.reading_bytes = 0
        self.arrivals = Arrivals(self.loop)
        self.refusals = Refusals()
        self._connections: dict[HttpConnection, None] = {}
        self._all_gone = asyncio.Event()
        self._sweeper: asyncio.TimerHandle | None = None

    def __call__(self) -> HttpConnection:
        """A protocol for a new connection."""
        return HttpConnection(self)

    def __len__(self) -> int:
        return len(self._connections)

    def opened(self, connection: HttpConnection) -> bool:
        """Take it in; False when there are too many that are at work. One that says nothing gives way."""
        if len(self._connections) >= self.options.connections:
            silent = next((each for each in self._connections if each.silent), None)
            if silent is None:
                return False
            silent.abort()
            del self._connections[silent]
        self._connections[connection] = None
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep)
        return True

    def spoke(self, connection: HttpConnection) -> None:
        """Move it behind those that have been silent for longer."""
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    def closed(self, connection: HttpConnection) -> None:
        """Forget it."""
        self._connections.pop(connection, None)
        if not self._connections:
            self._all_gone.set()

    async def close(self, grace_s: float) -> None:
        """Let requests that are being answered end, then close everything."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._connections):
            connection.finish()
        if self._connections:
            self._all_gone.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), grace_s)
        for connection in list(self._connections):
            connection.abort()

    def _sweep(self) -> None:
        now = time.monotonic()
        for connection in list(self._connections):
            connection.expire(now)
        self._sweeper = self.loop.call_later(_SWEEP_S, self._sweep) if self._connections else None
