"""What lay in the kernel while the loop was busy has waited; what wakes an idle loop has not."""

from __future__ import annotations

import asyncio
import time

from fogline_client.serving.arrivals import Arrivals

BUSY_S = 0.03


async def test_a_request_read_behind_others_has_waited_as_long_as_they_took():
    arrivals, ages = Arrivals(asyncio.get_running_loop()), []

    def read():
        """One of several that were ready at once: each keeps the loop from the next."""
        ages.append(time.monotonic() - arrivals.earliest())
        time.sleep(BUSY_S)

    loop = asyncio.get_running_loop()
    for _ in range(3):
        loop.call_soon(read)
    await asyncio.sleep(0)
    loop.call_soon(read)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert ages[0] < BUSY_S
    assert ages[1] >= BUSY_S
    assert ages[2] >= 2 * BUSY_S
    assert ages[3] >= BUSY_S  # it may have come while the three were read


async def test_an_idle_loop_lets_nobody_wait():
    arrivals = Arrivals(asyncio.get_running_loop())
    arrivals.earliest()
    await asyncio.sleep(BUSY_S)
    before = time.monotonic()
    assert arrivals.earliest() >= before
