from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from fogline_server.coordinator import Tick, run_tick
from fogline_shared.errors import Unavailable


async def test_a_tick_that_fails_or_crashes_is_called_again() -> None:
    errors: list[Exception | None] = [Unavailable("broker_unavailable", "no Redis"), RuntimeError("bug"), None, None]
    stop = asyncio.Event()

    def run() -> None:
        error = errors.pop(0)
        if not errors:
            stop.set()
        if error is not None:
            raise error

    with ThreadPoolExecutor(1) as threads:
        await asyncio.wait_for(run_tick(Tick(name="t", every_s=0.01, run=run), stop, threads), 5)
    assert errors == []


async def test_a_failing_tick_is_tried_more_and_more_rarely() -> None:
    calls: list[float] = []
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def run() -> None:
        calls.append(loop.time())
        raise RuntimeError("always")

    with ThreadPoolExecutor(1) as threads:
        task = asyncio.create_task(run_tick(Tick(name="t", every_s=0.02, run=run), stop, threads))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(task), 0.7)
        stop.set()
        await task
    pauses = [later - earlier for earlier, later in pairwise(calls)]
    assert pauses
    assert all(pause >= 0.02 * 2 ** (n + 1) - 0.005 for n, pause in enumerate(pauses)), pauses
