"""What the servicers share: the coordinator's parts, the gateway's options, and SQL off the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from sqlalchemy.orm import Session

from fogline_server.blobs.store import BlobStore
from fogline_server.db.database import Database
from fogline_server.devices.authority import CertificateAuthority
from fogline_server.jobs.doorbell import Doorbell
from fogline_server.telemetry.drift import DriftLimit

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class GatewayOptions:
    """Port 0 lets the system choose. ``advertised_host``: under which name devices reach both ports."""

    host: str = "127.0.0.1"
    gateway_port: int = 0
    enroll_port: int = 0
    advertised_host: str = "127.0.0.1"
    device_lease_s: float = 45.0
    certificate_days: float = 30.0
    # For so long after its certificate's end a device may still come back by itself.
    certificate_grace_days: float = 180.0
    telemetry_every_s: float = 10.0
    # How often the database is asked what is new, should a ring be lost.
    poll_s: float = 2.0
    # A device that sends nothing for so long in the middle of a call loses the call.
    idle_s: float = 30.0
    # Uploads written at once; the rest wait, held back by HTTP/2 flow control.
    uploads: int = 16
    infer_per_minute: int = 60
    drift: DriftLimit = field(default_factory=DriftLimit)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a coordinator that the gateway translates to."""

    db: Database
    blobs: BlobStore
    doorbell: Doorbell
    authority: CertificateAuthority
    options: GatewayOptions

    async def read(self, query: Callable[[Session], T]) -> T:
        """Run ``query`` in a read-only transaction, in a thread."""

        def work() -> T:
            with self.db.read() as session:
                return query(session)

        return await asyncio.to_thread(work)

    async def write(self, use_case: Callable[[Session], T], *channels: str) -> T:
        """Run ``use_case`` in a transaction, in a thread; ring ``channels`` once it has committed.

        A call that its device cancels meanwhile still commits and still rings.
        """

        def work() -> T:
            with self.db.transaction() as session:
                result = use_case(session)
            for channel in channels:
                self.doorbell.ring(channel)
            return result

        return await asyncio.to_thread(work)
