"""Rings go through Redis when it is there; when it is not, they cost a little time and no error."""

from __future__ import annotations

import asyncio
import time

from parts import RedisServer, free_port

from fogline_server.jobs.doorbell import Doorbell


def test_without_redis_a_ring_is_lost_and_a_waiter_waits() -> None:
    away = Doorbell(f"redis://127.0.0.1:{free_port()}/0")
    away.ring("fogline:test")
    waiter = away.waiter("fogline:test")
    began = time.monotonic()
    waiter.wait(0.2)
    assert 0.1 < time.monotonic() - began < 2
    waiter.close()


def test_a_waiter_sleeps_on_until_as_many_have_rung_as_it_waits_for(doorbell: Doorbell) -> None:
    waiter = doorbell.waiter("fogline:test")
    waiter.wait(0.05)
    for rung, wanted, returns in ((3, 3, True), (2, 3, False)):
        for _ in range(rung):
            doorbell.ring("fogline:test")
        began = time.monotonic()
        waiter.wait(30.0 if returns else 0.3, rings=wanted)
        assert returns or time.monotonic() - began >= 0.3
    waiter.close()


async def test_a_listener_hears_again_after_redis_was_killed(own_redis: RedisServer) -> None:
    doorbell = Doorbell(own_redis.url)
    heard: list[str] = []

    async def listen() -> None:
        async for payload in doorbell.listen("fogline:test"):
            heard.append(payload)  # noqa: PERF401 - the loop never ends

    async def ring_until(payload: str) -> None:
        while payload not in heard:
            await asyncio.to_thread(doorbell.ring, "fogline:test", payload)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(listen())
    await asyncio.wait_for(ring_until("before"), 10)
    await asyncio.to_thread(own_redis.kill)
    await asyncio.to_thread(own_redis.start)
    await asyncio.wait_for(ring_until("after"), 15)
    task.cancel()
