"""A device's folder as enrolment and a first update leave it, without any coordinator."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from tuf.api.metadata import Metadata, Root

from fogline_client import config as settings
from fogline_client import durable, identity
from fogline_client.config import AgentConfig, StateDir
from fogline_client.identity import Identity
from fogline_client.journal import Journal, Ledger
from fogline_client.slots import Slots
from fogline_client.telemetry.spool import Spool
from fogline_server.devices.authority import CertificateAuthority
from fogline_shared.enrollment import build_csr
from fogline_shared.protocol import Certificate, Report

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class LoneDevice:
    """Enrolled, stopped in good order, and without a model yet."""

    state: StateDir
    authority: CertificateAuthority

    @property
    def root(self) -> Path:
        return self.state.root

    def enroll(
        self, *, since: datetime = NOW, days: float = 30.0, target: str = "127.0.0.1:1", returns: str = ""
    ) -> None:
        """As if it had enrolled then."""
        key = identity.new_key()
        pem, _, _ = self.authority.sign_device(build_csr(key, "watch-1"), common_name="dev_1", days=days, now=since)
        issued = Certificate(
            device_id="dev_1", certificate_pem=pem, ca_pem=self.authority.ca_pem, gateway_target=target
        )
        made = Identity.of(
            issued, device_name="watch-1", key_pem=identity.pem_of(key), now=since.timestamp(), enroll_target=returns
        )
        identity.save(made, self.state.identity)

    def configure(self, **changes: object) -> None:
        settings.save(AgentConfig(name="watch-1", serve_port=0, **changes), self.state.config)

    def trust(self, *, until: datetime = NOW + 365 * DAY) -> None:
        root = Root(expires=until.replace(microsecond=0, tzinfo=UTC), version=1)
        self.state.trust.path.mkdir(exist_ok=True)
        self.state.trust.pinned.write_bytes(Metadata(root).to_bytes())

    def install(self, content: bytes) -> Path:
        """Make this the active model; where it lies."""
        slots, downloaded = Slots(self.state.slots), self.root / "downloaded"
        downloaded.write_bytes(content)
        pointer = slots.stage(downloaded, durable.digest_of(downloaded))
        slots.activate(pointer)
        return slots.path(pointer.slot)

    @classmethod
    def make(cls, root: Path, authority: CertificateAuthority) -> Self:
        device = cls(StateDir(root=root), authority)
        device.state.create()
        device.enroll()
        device.configure()
        device.trust()
        device.state.lock.touch()
        Slots(device.state.slots)
        Journal(device.state.journal).write(Ledger(settled=3))
        spool = Spool(device.state.spool, now=NOW.timestamp())
        spool.put(Report(assignment_id="asg_1", attempt=1, seq=0, boot_id="b", state="SUCCEEDED", generation=3))
        spool.close()
        device.state.outbox.mkdir()
        return device
