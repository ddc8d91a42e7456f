"""Tell systemd how the agent is (sd_notify(3)): datagrams of ``NAME=value`` lines to the socket that it names.

Without a manager there is no socket, and nothing is told.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

READY, STOPPING, WATCHDOG = "READY=1", "STOPPING=1", "WATCHDOG=1"


@dataclass(frozen=True, kw_only=True)
class Manager:
    """Who waits to be told. ``address``: a path, or a name behind ``@``; ``watchdog_s``: how long it waits for a sign of life."""

    address: str = ""
    watchdog_s: float = 0.0

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Manager:
        """As the environment names it; taken out there, since processes we start have nothing to tell."""
        address = environment.pop("NOTIFY_SOCKET", "")
        found = {name: environment.pop(name, "") for name in ("WATCHDOG_USEC", "WATCHDOG_PID")}
        return cls(address=address if address[:1] in {"/", "@"} else "", watchdog_s=_watchdog_s(found))

    def tell(self, *lines: str) -> None:
        """Send; what does not arrive must not harm the agent."""
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.warning("systemd was not told", what=lines, reason=str(error))

    async def watch(self) -> None:
        """Give a sign of life for as long as the event loop that this runs on turns; it never ends.

        Whoever blocks the loop (a model that does not return, a disk that hangs) blocks this too, and is restarted.
        """
        if not self.watchdog_s:
            await asyncio.Event().wait()
        while True:
            self.tell(WATCHDOG)
            # A third: one that is lost on the way costs nothing.
            await asyncio.sleep(self.watchdog_s / 3)


def _watchdog_s(found: Mapping[str, str]) -> float:
    if found["WATCHDOG_PID"] not in {"", str(os.getpid())} or not found["WATCHDOG_USEC"].isdecimal():
        return 0.0
    return int(found["WATCHDOG_USEC"]) / 1e6
