"""Keeps the device's certificate fresh: renewed in time while it is connected, asked for anew once it has ended offline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import structlog

from fogline_client import enroll, identity
from fogline_client.identity import Identity
from fogline_shared.errors import ErrorKind, Exhausted, FoglineError

log = structlog.get_logger()

# The longest sleep: a suspended machine's clock jumps.
_LOOK_S = 600.0
_RETRY_S = 30.0
_REFUSED = frozenset({ErrorKind.UNAUTHENTICATED, ErrorKind.FORBIDDEN})


@dataclass(frozen=True, kw_only=True)
class Renewal:
    """``online``: set while connected; ``renewed``: takes the next identity, which lies at ``path`` if there was room."""

    path: Path
    current: Callable[[], Identity]
    renewed: Callable[[Identity], None]
    online: asyncio.Event
    rng: Random

    async def run(self) -> None:
        """Renew at two thirds of the life, or as soon as there is a connection after that; for ever."""
        while True:
            before = self.current()
            left_s = before.renewal_at - time.time()
            if left_s > 0:
                await asyncio.sleep(min(left_s, _LOOK_S))
            elif self.online.is_set():
                await self._ask(before)
            elif time.time() >= before.expires_at and before.enroll_target:
                # Without a certificate there is no connection to wait for.
                await self._ask(before)
            else:
                await self._wait(before)

    async def _wait(self, before: Identity) -> None:
        """For a connection, or the certificate's end."""
        left_s = before.expires_at - time.time()
        try:
            async with asyncio.timeout(min(left_s, _LOOK_S) if left_s > 0 else _LOOK_S):
                await self.online.wait()
        except TimeoutError:
            return

    async def _ask(self, before: Identity) -> None:
        """Ask for the next one and take it; wait a while after a failure."""
        ask = enroll.renew if self.online.is_set() else enroll.come_back
        try:
            issued = await ask(before)
        except FoglineError as error:
            log.warning("certificate not renewed", code=error.code, reason=error.message)
            # Who is refused is told the same in half a minute.
            pause_s = _LOOK_S if error.kind in _REFUSED else _RETRY_S
            await asyncio.sleep(self.rng.uniform(0.5, 1.0) * pause_s)
            return
        try:
            await asyncio.to_thread(identity.save, issued, self.path)
        except (Exhausted, OSError) as error:
            # Good for as long as this process lives; the next one begins with the old one and comes back with it.
            log.warning("certificate not saved", reason=str(error))
        log.info("certificate renewed", until=str(datetime.fromtimestamp(issued.expires_at, UTC)))
        self.renewed(issued)
        if issued.renewal_at <= time.time():
            log.warning("the clock is ahead: a certificate of now is old by it")
            await asyncio.sleep(_LOOK_S)
