"""Ed25519 keys as PEM files (PKCS #8, mode 0600), with a passphrase or without."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from fogline_server.access.files import read_or_create
from fogline_server.trust.model import ONLINE
from fogline_shared.errors import Conflict, Corrupt, Unavailable

# In a public key within metadata: what people call it.
NAME_FIELD = "x-fogline-name"

Passphrase = Callable[[Path], bytes]
"""Asked for the passphrase of an encrypted key's file."""


def name_of(key: Key) -> str:
    """What people call it, or the beginning of its id."""
    return str(key.unrecognized_fields.get(NAME_FIELD, key.keyid[:12]))


def create(path: Path, *, passphrase: bytes | None) -> CryptoSigner:
    """A new key in a new file; raises Conflict ``key_exists``: no key is ever written over."""
    private = Ed25519PrivateKey.generate()
    way = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, way)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Conflict("key_exists", f"{path} exists already") from error
    with os.fdopen(handle, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return _signer(private, path.stem)


def load(path: Path, passphrase: Passphrase) -> CryptoSigner:
    """The key of a file; raises Corrupt ``key_damaged``, also for a wrong passphrase."""
    try:
        pem = path.read_bytes()
        secret = passphrase(path) if b"ENCRYPTED" in pem else None
        private = serialization.load_pem_private_key(pem, secret)
    except (OSError, ValueError, TypeError) as error:
        raise Corrupt("key_damaged", f"{path} is missing, holds no key, or the passphrase is wrong") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise Corrupt("key_damaged", f"{path} holds no ed25519 key")
    return _signer(private, path.stem)


def _signer(private: Ed25519PrivateKey, name: str) -> CryptoSigner:
    public = SSlibKey.from_crypto(private.public_key())
    public.unrecognized_fields[NAME_FIELD] = name
    return CryptoSigner(private, public)


class OnlineKeys:
    """The coordinator's own signing keys: ``<role>-<number>.pem``, of which each role's newest is offered to a ceremony.

    Older ones stay: until the ceremony's result is imported, it is they that the metadata names. Replicas that share the
    folder agree, since a file appears whole, once.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        """Where they lie, and throwaway keys below it."""
        return self._folder

    def offered(self) -> Mapping[str, CryptoSigner]:
        """Each online role's newest key; made when there is none."""
        return {role: self._load(role, max(self._numbers(role), default=1)) for role in ONLINE}

    def renew(self) -> None:
        """Make each role's next key. Nothing is signed with it before a ceremony has named it."""
        for role in ONLINE:
            self._load(role, max(self._numbers(role), default=0) + 1)

    def signer_for(self, role: str, keyids: Iterable[str]) -> CryptoSigner:
        """The key that the metadata names for a role; raises Unavailable ``trust_key_missing``."""
        wanted = set(keyids)
        for number in sorted(self._numbers(role), reverse=True):
            signer = self._load(role, number)
            if signer.public_key.keyid in wanted:
                return signer
        raise Unavailable("trust_key_missing", f"{self._folder} lacks the key that the metadata names for {role!r}")

    def holds(self, role: str, keyids: Iterable[str]) -> bool:
        """Whether :meth:`signer_for` would find one."""
        try:
            self.signer_for(role, keyids)
        except Unavailable:
            return False
        return True

    def _numbers(self, role: str) -> list[int]:
        found = (re.fullmatch(rf"{role}-(\d+)\.pem", path.name) for path in self._folder.glob(f"{role}-*.pem"))
        return [int(match[1]) for match in found if match]

    def _load(self, role: str, number: int) -> CryptoSigner:
        path = self._folder / f"{role}-{number}.pem"
        pem = read_or_create(path, _new_pem)
        try:
            private = serialization.load_pem_private_key(pem.encode(), None)
        except (ValueError, TypeError) as error:
            raise Corrupt("key_damaged", f"{path} holds no private key") from error
        assert isinstance(private, Ed25519PrivateKey)
        return _signer(private, path.stem)


def _new_pem() -> str:
    return (
        Ed25519PrivateKey.generate()
        .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        .decode()
    )
