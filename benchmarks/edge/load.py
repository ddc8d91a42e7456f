"""Load on an endpoint: as much as it answers (closed loop), or so many requests a second whatever it answers (open loop)."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import httptools


@dataclass(kw_only=True)
class Outcome:
    """Latencies are of status 200, in seconds, from when a request was due: a late client is no excuse."""

    seconds: float = 0.0
    offered: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def goodput(self, deadline_s: float) -> float:
        """Answers within the deadline, per second."""
        return sum(latency <= deadline_s for latency in self.latencies) / self.seconds


class _Client(asyncio.Protocol):
    """One connection; ``free`` is called with it after each answer, and whenever it is new."""

    def __init__(self, outcome: Outcome, free: Callable[[_Client], None]) -> None:
        self._outcome = outcome
        self._free = free
        self._parser = httptools.HttpResponseParser(self)
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self._outcome.statuses[status] += 1
        if status == 200:
            self._outcome.latencies.append(time.monotonic() - self._due)
        self._free(self)

    def ask(self, request: bytes, due: float) -> None:
        """Send it."""
        self._due = due
        self._outcome.offered += 1
        self._transport.write(request)

    def close(self) -> None:
        """Hang up."""
        self._transport.close()


async def _connect(port: int, number: int, outcome: Outcome, free: Callable[[_Client], None]) -> list[_Client]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(lambda: _Client(outcome, free), "127.0.0.1", port))[1] for _ in range(number)]


async def closed_loop(port: int, request: bytes, *, connections: int, seconds: float) -> Outcome:
    """Each connection asks again as soon as it has been answered."""
    outcome, until = Outcome(), time.monotonic() + seconds

    def again(client: _Client) -> None:
        if (now := time.monotonic()) < until:
            client.ask(request, now)

    clients = await _connect(port, connections, outcome, again)
    started = time.monotonic()
    until = started + seconds
    for client in clients:
        again(client)
    await asyncio.sleep(seconds)
    outcome.seconds = time.monotonic() - started
    for client in clients:
        client.close()
    return outcome


async def open_loop(port: int, request: bytes, *, rate: float, connections: int, seconds: float) -> Outcome:
    """Requests at random times, ``rate`` a second on average; each waits for a free connection, which is part of its time."""
    outcome, chance = Outcome(), random.Random(0)
    free: asyncio.Queue[_Client] = asyncio.Queue()
    clients = await _connect(port, connections, outcome, free.put_nowait)
    for client in clients:
        free.put_nowait(client)
    started = due = time.monotonic()
    while due < started + seconds:
        if (early := due - time.monotonic()) > 0:
            await asyncio.sleep(early)
        (await free.get()).ask(request, due)
        due += chance.expovariate(rate)
    outcome.seconds = time.monotonic() - started
    await asyncio.sleep(0.5)
    for client in clients:
        client.close()
    return outcome
