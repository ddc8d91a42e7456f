"""Wake-ups over Redis. A lost ring costs latency, never work: every listener also looks at the database by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress

import redis
import redis.asyncio

# Ring when a device has something new to be told (payload: device ids, comma separated; empty means any).
DEVICES = "fogline:devices"
# Ring when a reply arrived or a run changed (channel suffix: run id).
RUN = "fogline:run:"
# Ring when the event log grew.
EVENTS = "fogline:events"

_RETRY_S = 0.5


class Doorbell:
    """Best-effort publish and subscribe; one a process."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=1)

    def ring(self, channel: str, payload: str = "") -> None:
        """Wake whoever listens; do nothing when Redis is away."""
        with suppress(redis.RedisError):
            self._redis.publish(channel, payload)

    def waiter(self, channel: str) -> Waiter:
        """A synchronous listener for one loop."""
        return Waiter(self.url, channel)

    async def listen(self, channel: str) -> AsyncIterator[str]:
        """Payloads rung on ``channel``, for ever; reconnects by itself."""
        while True:
            try:
                async with redis.asyncio.Redis.from_url(self.url) as client, client.pubsub() as pubsub:
                    await pubsub.subscribe(channel)
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            yield message["data"].decode()
            except redis.RedisError:
                pass  # a ring is a hint: who listens also looks by himself
            await asyncio.sleep(_RETRY_S)


class Waiter:
    """Waits for a ring or for time to pass, whichever comes first."""

    def __init__(self, url: str, channel: str) -> None:
        self._redis = redis.Redis.from_url(url, socket_connect_timeout=1)
        self._channel = channel
        self._pubsub: redis.client.PubSub | None = None

    def wait(self, timeout_s: float, *, rings: int = 1) -> None:
        """Return at the last of so many rings, or after ``timeout_s`` seconds; without Redis, after a short sleep."""
        end = time.monotonic() + timeout_s
        try:
            if self._pubsub is None:
                self._pubsub = self._redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
                self._pubsub.subscribe(self._channel)
            while (left := end - time.monotonic()) > 0:
                rings -= self._pubsub.get_message(timeout=left) is not None
                if rings <= 0:
                    return
        except redis.RedisError:
            self.close()
            time.sleep(min(timeout_s, _RETRY_S))

    def close(self) -> None:
        """Drop the connection; the next wait makes a new one."""
        if self._pubsub is not None:
            with suppress(redis.RedisError):
                self._pubsub.close()
            self._pubsub = None
