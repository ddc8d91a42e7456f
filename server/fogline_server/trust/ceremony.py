"""The key ceremony: root and top-level targets, made and signed in a folder on a machine that needs no network.

::

    keys/root-1.pem root-2.pem root-3.pem targets-1.pem      private; to be kept apart
    metadata/1.root.json 1.targets.json                      public; what `fogline trust import` takes
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Role, Root, Targets

from fogline_server.trust import keys as key_files
from fogline_server.trust.keys import Passphrase, name_of
from fogline_server.trust.model import (
    MAX_DOCUMENT_BYTES,
    RELEASE,
    RELEASED_PATHS,
    ROOT,
    SNAPSHOT,
    TARGETS,
    TIMESTAMP,
    parse_document,
)
from fogline_shared.errors import Conflict, InvalidInput, NotFound

OnlinePublic = Mapping[str, SSlibKey]
"""Online role → the public key that the coordinator offers for it."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A ceremony's numbers. Raises InvalidInput ``bad_ceremony``."""

    root_keys: int = 3
    threshold: int = 2
    root_days: int = 365
    targets_days: int = 365

    def __post_init__(self) -> None:
        if not 1 <= self.threshold <= self.root_keys <= 20:
            raise InvalidInput("bad_ceremony", "1 ≤ threshold ≤ root keys ≤ 20 must hold")
        if not (1 <= self.root_days <= 3650 and 1 <= self.targets_days <= 3650):
            raise InvalidInput("bad_ceremony", "signatures hold 1 to 3650 days")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """A document and who has signed it. ``missing``: names of keys of which ``lacking`` more must sign."""

    role: str
    version: int
    expires_at: datetime
    signed: Sequence[str]
    missing: Sequence[str]
    lacking: int

    @property
    def complete(self) -> bool:
        """Whether enough have signed."""
        return self.lacking == 0


class Folder:
    """A ceremony's folder."""

    def __init__(self, path: Path) -> None:
        self._keys, self._metadata = path / "keys", path / "metadata"

    def init(self, online: OnlinePublic, plan: Plan, *, passphrase: bytes | None, now: datetime) -> None:
        """Make all offline keys and version 1 of both documents, signed by all; raises Conflict ``trust_exists``."""
        if self._keys.exists() or self._metadata.exists():
            raise Conflict("trust_exists", f"{self._keys.parent} holds a ceremony already; see `fogline trust rotate`")
        made = [self._create(f"root-{i + 1}", passphrase) for i in range(plan.root_keys)]
        targets_key = self._create("targets-1", passphrase)
        root = Root(version=1, expires=_after(now, plan.root_days), consistent_snapshot=True)
        root.roles[ROOT].threshold = plan.threshold
        for signer in made:
            root.add_key(signer.public_key, ROOT)
        root.add_key(targets_key.public_key, TARGETS)
        for role in (SNAPSHOT, TIMESTAMP):
            root.add_key(online[role], role)
        targets = Targets(version=1, expires=_after(now, plan.targets_days), delegations=_delegations(online[RELEASE]))
        self._save(Metadata(root), made)
        self._save(Metadata(targets), [targets_key])

    def sign(self, files: Iterable[Path], passphrase: Passphrase) -> list[Standing]:
        """Sign the newest documents with each key that may; raises InvalidInput ``key_not_entitled`` when none may."""
        signers = [key_files.load(path, passphrase) for path in files or sorted(self._keys.glob("*.pem"))]
        entitled = 0
        for role in (ROOT, TARGETS):
            document = self.newest(role)
            mine = [each for each in signers if each.public_key.keyid in self._signatories(document)]
            entitled += len(mine)
            if mine and not self.standing(document).complete:
                self._save(document, mine, again=True)
        if not entitled:
            raise InvalidInput("key_not_entitled", "none of the keys may sign this root or targets")
        return self.standings()

    def rotate(
        self,
        replaced: Sequence[str],
        online: OnlinePublic | None,
        plan: Plan,
        *,
        passphrase: bytes | None,
        now: datetime,
    ) -> list[Standing]:
        """The next version of both documents, unsigned.

        Keys named in ``replaced`` give way to new ones, the online keys to those in ``online``; without either only
        the expiry moves.
        Raises Conflict ``version_unsigned``, NotFound ``key_unknown``.
        """
        for standing in self.standings():
            if not standing.complete:
                raise Conflict(
                    "version_unsigned", f"version {standing.version} of {standing.role} still lacks signatures"
                )
        root, targets = self.newest(ROOT).signed, self.newest(TARGETS).signed
        for name in replaced:
            role, old = _named(root, name)
            root.revoke_key(old.keyid, role)
            root.add_key(self._create(self._next_name(role), passphrase).public_key, role)
        if online is not None:
            for role in (SNAPSHOT, TIMESTAMP):
                for keyid in list(root.roles[role].keyids):
                    root.revoke_key(keyid, role)
                root.add_key(online[role], role)
            targets.delegations = _delegations(online[RELEASE])
        root.version, root.expires = root.version + 1, _after(now, plan.root_days)
        targets.version, targets.expires = targets.version + 1, _after(now, plan.targets_days)
        self._save(Metadata(root), [])
        self._save(Metadata(targets), [])
        return self.standings()

    def newest(self, role: str) -> Metadata[Any]:
        """The newest document of a role; raises NotFound ``no_ceremony``."""
        versions = [int(p.name.split(".")[0]) for p in self._metadata.glob(f"*.{role}.json") if p.name[0].isdigit()]
        if not versions:
            raise NotFound("no_ceremony", f"{self._metadata} holds no {role}; see `fogline trust init`")
        return read(self._metadata / f"{max(versions)}.{role}.json")

    def standings(self) -> list[Standing]:
        """How the newest documents stand."""
        return [self.standing(self.newest(role)) for role in (ROOT, TARGETS)]

    def standing(self, document: Metadata[Any]) -> Standing:
        """Who has signed a document, and who should."""
        role = document.signed.type
        results = [
            by.get_verification_result(role, document.signed_bytes, document.signatures)
            for by in self._delegators(document)
        ]
        return Standing(
            role=role,
            version=document.signed.version,
            expires_at=document.signed.expires,
            signed=sorted({name_of(key) for result in results for key in result.signed.values()}),
            missing=sorted({name_of(key) for result in results for key in result.unsigned.values()}),
            lacking=max(result.missing for result in results),
        )

    def private_keys(self) -> set[str]:
        """Ids of the keys whose unencrypted private part lies here."""

        def nothing(_: Path) -> bytes:
            return b""

        return {key_files.load(path, nothing).public_key.keyid for path in self._keys.glob("*.pem")}

    def documents(self) -> list[bytes]:
        """Every version of both documents, in the order in which they are imported."""
        paths = sorted(self._metadata.glob("*.json"), key=lambda p: (p.name.split(".")[1], int(p.name.split(".")[0])))
        return [path.read_bytes() for path in paths]

    def _delegators(self, document: Metadata[Any]) -> list[Root]:
        """Whose keys must sign: a root is signed by its own and by its predecessor's."""
        if document.signed.type == TARGETS:
            return [self.newest(ROOT).signed]
        before = self._metadata / f"{document.signed.version - 1}.{ROOT}.json"
        return [*([read(before).signed] if before.exists() else []), document.signed]

    def _signatories(self, document: Metadata[Any]) -> set[str]:
        return {keyid for by in self._delegators(document) for keyid in by.roles[document.signed.type].keyids}

    def _create(self, name: str, passphrase: bytes | None) -> CryptoSigner:
        return key_files.create(self._keys / f"{name}.pem", passphrase=passphrase)

    def _next_name(self, role: str) -> str:
        """Counts every key there ever was, so that a name means one key."""
        names = {name_of(key) for path in self._metadata.glob("*.root.json") for key in read(path).signed.keys.values()}
        names |= {path.stem for path in self._keys.glob("*.pem")}
        numbers = [int(name.rsplit("-", 1)[1]) for name in names if name.startswith(f"{role}-")]
        return f"{role}-{max(numbers, default=0) + 1}"

    def _save(self, document: Metadata[Any], signers: Iterable[CryptoSigner], *, again: bool = False) -> None:
        for signer in signers:
            document.sign(signer, append=True)
        self._metadata.mkdir(parents=True, exist_ok=True)
        path = self._metadata / f"{document.signed.version}.{document.signed.type}.json"
        draft = path.with_name(f".{path.name}")
        with draft.open("wb") as file:
            file.write(document.to_bytes())
            file.flush()
            os.fsync(file.fileno())
        if again:
            draft.replace(path)
        else:
            path.hardlink_to(draft)  # never over another document of that version
            draft.unlink()


def read(path: Path) -> Metadata[Any]:
    """A document's file; raises InvalidInput ``bad_trust_metadata``."""
    try:
        with path.open("rb") as file:
            return parse_document(file.read(MAX_DOCUMENT_BYTES + 1))
    except OSError as error:
        raise InvalidInput("bad_trust_metadata", f"{path} cannot be read: {error.strerror}") from error


def online_from_json(status: Mapping[str, Any]) -> OnlinePublic:
    """The keys that a coordinator offers, out of ``fogline trust show --json``; raises InvalidInput ``bad_online_keys``."""
    try:
        offered = status["online_keys"]
        return {role: _public(offered[role]) for role in (RELEASE, SNAPSHOT, TIMESTAMP)}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput("bad_online_keys", f"not what `fogline trust show --json` prints: {error!r}") from error


def _public(raw: Mapping[str, Any]) -> SSlibKey:
    key = SSlibKey.from_dict(str(raw["keyid"]), dict(raw["key"]))
    if key.keytype != "ed25519":
        raise ValueError(f"an ed25519 key is needed, not {key.keytype}")
    return key


def _delegations(key: SSlibKey) -> Delegations:
    role = DelegatedRole(RELEASE, [key.keyid], 1, terminating=True, paths=list(RELEASED_PATHS))
    return Delegations({key.keyid: key}, {RELEASE: role})


def _named(root: Root, name: str) -> tuple[str, SSlibKey]:
    for role in (ROOT, TARGETS):
        holder: Role = root.roles[role]
        for keyid in holder.keyids:
            key = root.keys[keyid]
            if isinstance(key, SSlibKey) and name in (name_of(key), keyid):
                return role, key
    raise NotFound("key_unknown", f"no offline key {name!r} in the newest root")


def _after(now: datetime, days: int) -> datetime:
    return (now + timedelta(days=days)).replace(microsecond=0)
