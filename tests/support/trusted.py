"""A publisher with real keys over a real database, on a clock the test moves; and devices that check what it serves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from fogline_client.trust.check import pin
from fogline_client.trust.floor import Floor
from fogline_client.trust.layout import TrustDir, Wanted
from fogline_client.trust.verify import verify
from fogline_server.db.base import new_id
from fogline_server.db.database import Database
from fogline_server.registry.provenance import seal_of
from fogline_server.registry.tables import Release, Variant
from fogline_server.trust import catalogue, publish, service, store, tick
from fogline_server.trust.ceremony import Folder, Plan
from fogline_server.trust.keys import OnlineKeys
from fogline_server.trust.model import Listed
from fogline_shared.errors import FoglineError, NotFound

DAY = timedelta(days=1)


class Publisher:
    """A coordinator's trust and the ceremony behind it; ``others``: so many more artifacts that are listed."""

    def __init__(
        self, db: Database, root: Path, *, now: datetime | None = None, plan: Plan | None = None, others: int = 0
    ) -> None:
        self.db = db
        self.now = now or datetime.now(UTC)
        self.keys = OnlineKeys(root / "online")
        self.folder = root / "ceremony"
        self.ceremony = Folder(self.folder)
        self.ceremony.init(self.offered(), plan or Plan(), passphrase=None, now=self.now)
        self.import_ceremony()
        if others:
            self.list_others(others)

    def list_others(self, count: int) -> None:
        """List artifacts that no test asks for."""
        self._list(
            Listed(release_id=f"rel_{n}", variant="student_int8", digest=f"{n:064x}", size=1, recipe="toy")
            for n in range(count)
        )

    def list_again(self, wanted: Wanted) -> None:
        """Sign once more what lists an artifact."""
        self._list([Listed(**asdict(wanted), recipe="toy")])

    def _list(self, listed: Iterable[Listed]) -> None:
        with self.db.transaction() as session:
            publish.publish(session, self.keys, listed, now=self.now)

    def offered(self) -> dict[str, Any]:
        return {role: signer.public_key for role, signer in self.keys.offered().items()}

    def import_ceremony(self) -> None:
        with self.db.transaction() as session:
            service.import_documents(session, self.keys, self.ceremony.documents(), now=self.now, actor="test")

    def release(self, content: bytes = b"model") -> Wanted:
        """Seal a release of one variant, as the registry does; what a device is then told to run."""
        digest, release_id = hashlib.sha256(content).hexdigest(), new_id("rel")
        with self.db.transaction() as session:
            release = Release(
                id=release_id, name=release_id, recipe="toy", state="READY", lineage={}, report={},
                default_variant="student_int8", created_at=self.now, sealed_at=self.now,
            )  # fmt: skip
            variant = Variant(release_id=release_id, name="student_int8", digest=digest, size=len(content))
            session.add(release)
            session.flush()
            session.add(variant)
            session.flush()
            release.lineage = {"seal": seal_of(release, [variant])}
            publish.publish(session, self.keys, publish.listing(release, [variant]), now=self.now)
        return Wanted(release_id=release_id, variant="student_int8", digest=digest, size=len(content))

    def pass_time(self, delta: timedelta) -> list[str]:
        """Move the clock; the coordinator's tick runs once. Returns what it has signed anew."""
        self.now += delta
        return tick.tick(self.db, self.keys, now=self.now)

    def rotate(self, *, replaced: tuple[str, ...] = (), online: bool = False, signers: tuple[str, ...] = ()) -> None:
        """A whole rotation: new keys, signatures by ``signers`` (all when empty), import."""
        if online:
            self.keys.renew()
        offered = self.offered() if online else None
        self.ceremony.rotate(replaced, offered, Plan(), passphrase=None, now=self.now)
        self.ceremony.sign([self.folder / "keys" / f"{name}.pem" for name in signers], lambda _: b"")
        self.import_ceremony()

    def get(self, name: str) -> bytes | None:
        """Metadata as the gateway serves it."""
        with self.db.read() as session:
            try:
                return store.document(session, name)
            except NotFound:
                return None

    def newest(self, role: str) -> Metadata[Any]:
        with self.db.read() as session:
            row = store.newest(session, role)
            assert row is not None
            return Metadata[Any].from_bytes(row.body)

    def lists(self, wanted: Wanted) -> str:
        """The role that an artifact is or would be listed by: ``release``, or one of its bins."""
        with self.db.read() as session:
            cut = catalogue.bins(session)
        return cut.get_role_for_target(wanted.path) if cut else "release"

    def listing(self) -> list[str]:
        """All roles that list artifacts, or name those that do."""
        with self.db.read() as session:
            cut = catalogue.bins(session)
        return ["release", *(cut.get_roles() if cut else ())]

    def stolen(self, role: str) -> CryptoSigner:
        """The online key of a role, in a thief's hands."""
        return self.keys.offered()[role]


class Attacker:
    """Stands between publisher and device, and serves what it likes."""

    def __init__(self, publisher: Publisher) -> None:
        self.publisher = publisher
        self.instead: dict[str, bytes | None] = {}

    def record(self) -> dict[str, bytes]:
        """All that is served now, to be replayed later."""
        roles = ("root", "snapshot", "targets", *self.publisher.listing())
        versioned = {r: self.publisher.newest(r).signed.version for r in roles}
        names = ["timestamp.json", "root.json", *(f"{version}.{role}.json" for role, version in versioned.items())]
        return {name: self.publisher.get(name) or b"" for name in names}

    def forge(self, document: Metadata[Any], signer: CryptoSigner, **fields: Any) -> None:
        """Serve a changed document under a signature of ``signer``."""
        for name, value in fields.items():
            setattr(document.signed, name, value)
        document.sign(signer)
        role = document.signed.type if document.signed.type != "targets" else "release"
        name = "timestamp.json" if role == "timestamp" else f"{document.signed.version}.{role}.json"
        self.instead[name] = document.to_bytes()

    def get(self, name: str) -> bytes | None:
        return self.instead[name] if name in self.instead else self.publisher.get(name)


class CheckingDevice:
    """A device's trust, in this process; its clock is what each check is told."""

    def __init__(self, root: Path, publisher: Publisher, *, pinned: bool = False) -> None:
        self.trust = TrustDir(path=root)
        self.publisher = publisher
        if not pinned:
            pin(self.trust, publisher.get("root.json") or b"")

    def check(
        self, wanted: Wanted, fetch: Callable[[str], bytes | None] | None = None, *, now: datetime | None = None
    ) -> Floor:
        return verify(self.trust, wanted, fetch or self.publisher.get, now=now or self.publisher.now)

    def refuses(
        self, wanted: Wanted, fetch: Callable[[str], bytes | None] | None = None, *, now: datetime | None = None
    ) -> str:
        """The code of the refusal; empty when there is none."""
        try:
            self.check(wanted, fetch, now=now)
        except FoglineError as error:
            return error.code
        return ""
