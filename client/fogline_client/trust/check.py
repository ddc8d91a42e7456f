"""The agent's side of trust: starts the child for a check, brings it metadata, kills it at the deadline."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Protocol

import structlog

from fogline_client import durable
from fogline_client.trust.child import as_json, from_json
from fogline_client.trust.layout import TrustDir, Wanted
from fogline_shared.errors import Corrupt, FoglineError, Unavailable
from fogline_shared.protocol import DesiredState

log = structlog.get_logger()

# For the whole of a check, however its bytes trickle.
DEADLINE_S = 60.0
# A check that passed holds for the steps of one attempt that follow each other.
_HOLDS_S = 60.0


class Trust(Protocol):
    """What the updater asks before it takes an artifact."""

    async def check(self, desired: DesiredState) -> None:
        """Return if the artifact may be installed; raises FoglineError why not. May wait for the network."""


Metadata = Callable[[str], Awaitable[bytes | None]]
"""Signed metadata by name; None: there is none. Raises FoglineError."""


class TufTrust:
    """Trusts what valid, unexpired metadata lists, beginning from a pinned root."""

    def __init__(
        self,
        trust: TrustDir,
        fetch: Metadata,
        online: Callable[[], Awaitable[Any]],
        *,
        deadline_s: float = DEADLINE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._trust = trust
        self._fetch = fetch
        self._online = online
        self._deadline_s = deadline_s
        self._clock = clock
        self._passed: tuple[Wanted, float] | None = None
        # An update and a measurement may ask at once; each check writes down what it has verified.
        self._turn = asyncio.Lock()

    async def check(self, desired: DesiredState) -> None:
        """Raises as :func:`fogline_client.trust.verify.verify` does; also Unavailable ``trust_too_slow``,
        ``trust_check_failed``, ``trust_not_set_up``; Corrupt ``trust_root_lost``.
        """  # noqa: D205
        wanted = Wanted(
            release_id=desired.release_id,
            variant=desired.variant,
            digest=desired.artifact_digest,
            size=desired.artifact_size,
        )
        if self._passed is not None and self._passed[0] == wanted and time.monotonic() < self._passed[1]:
            return
        await self._online()  # a device may be offline for weeks; only what a connection brings is timed
        async with self._turn:
            try:
                async with asyncio.timeout(self._deadline_s):
                    await self._pin()
                    answer = await self._ask(wanted)
            except TimeoutError as error:
                message = f"the metadata did not come within {self._deadline_s:g} s"
                raise Unavailable("trust_too_slow", message) from error
        self._passed = wanted, time.monotonic() + _HOLDS_S
        log.info("artifact is signed", target=wanted.path, root=answer["root"])

    async def _pin(self) -> None:
        """A device that enrolled before there was a root begins with the one that its coordinator has now."""
        pinned = self._trust.pinned
        if pinned.exists():
            return
        if self._trust.floor.exists():
            raise Corrupt("trust_root_lost", f"{pinned} is gone: enrol again, or put it back")
        root = await self._fetch("root.json")
        if root is None:
            raise Unavailable("trust_not_set_up", "the coordinator has no root of trust yet")
        log.warning("root of trust taken from the coordinator: none was pinned at enrolment")
        await asyncio.to_thread(pin, self._trust, root)

    async def _ask(self, wanted: Wanted) -> dict[str, Any]:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "fogline_client.trust.child",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        order = {"trust": str(self._trust.path.absolute()), "wanted": asdict(wanted), "now": self._clock()}
        try:
            return await self._serve(child, order)
        except (OSError, ValueError, KeyError, TypeError, asyncio.IncompleteReadError) as error:
            raise Unavailable("trust_check_failed", f"the process that checks ended early: {error!r}") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()

    async def _serve(self, child: asyncio.subprocess.Process, order: dict[str, Any]) -> dict[str, Any]:
        assert child.stdin is not None, "both pipes were asked for"
        assert child.stdout is not None, "both pipes were asked for"
        child.stdin.write(_line(order))
        while True:
            said: dict[str, Any] = json.loads(await child.stdout.readuntil(b"\n"))
            if "code" in said:
                raise from_json(said)
            if "fetch" not in said:
                return said
            try:
                data = await self._fetch(str(said["fetch"]))
            except FoglineError as error:
                child.stdin.write(_line(as_json(error)))
            else:
                child.stdin.write(_line({"size": -1 if data is None else len(data)}) + (data or b""))
            await child.stdin.drain()


def begin(trust: TrustDir, root: bytes) -> None:
    """Forget what was trusted before, and begin with this root; an empty one is asked for at the first check."""
    shutil.rmtree(trust.path, ignore_errors=True)
    if root:
        pin(trust, root)


def pin(trust: TrustDir, root: bytes) -> None:
    """Begin with this root; raises Exhausted ``disk_full``."""
    durable.make_folder(trust.path, mode=0o700)
    durable.write(trust.pinned, root)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b"\n"
