"""A TCP proxy between agent and gateway that can be slow, cut connections, and be away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any


class FaultProxy:
    """``rate``: bytes a second towards the agent, None for no limit. ``carried`` counts them."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task] = set()
        self.port = 0
        self.rate: int | None = None
        self.carried = 0

    async def heal(self) -> None:
        """Accept connections (again, on the same port)."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse new connections and drop the present ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for link in self._links:
            link.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._links.add(task)
        far_writer = None
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, far_writer, limited=False))
                group.create_task(self._pump(far_reader, writer, limited=True))
        except (OSError, asyncio.CancelledError, ExceptionGroup):
            pass
        finally:
            self._links.discard(task)
            for each in (writer, far_writer):
                if each is not None:
                    each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, limited: bool) -> None:
        while data := await reader.read(16 * 1024):
            if limited:
                self.carried += len(data)
                if self.rate:
                    await asyncio.sleep(len(data) / self.rate)
            writer.write(data)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()


class ProxyThread:
    """A proxy for tests without an event loop: it has a thread of its own from :meth:`start` to :meth:`stop`."""

    def __init__(self, target_port: int) -> None:
        self.proxy = FaultProxy(target_port)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    def start(self) -> None:
        self._thread.start()
        self._run(self.proxy.heal())

    def stop(self) -> None:
        self._run(self.proxy.cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)
