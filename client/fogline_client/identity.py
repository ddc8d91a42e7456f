"""A device's identity: its private key and the certificate that the coordinator issued for it, in one file, mode 0600.

Key and certificate change together or not at all, since they are one file. ``cryptography`` (10 MB resident) is imported
only where an identity is made, since a running agent needs it once in twenty days.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fogline_client import durable
from fogline_shared.errors import Corrupt, Unauthenticated
from fogline_shared.protocol import Certificate

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

# A certificate is renewed when this share of its life is over.
RENEW_AFTER = 2 / 3


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who this device is. PEM texts, ``host:port``, Unix seconds; ``issued_at`` is by our own clock."""

    device_id: str
    device_name: str
    key_pem: str
    certificate_pem: str
    ca_pem: str
    gateway_target: str
    issued_at: float
    expires_at: float
    # Where to ask for the next one when this one has ended; empty where that was not noted yet.
    enroll_target: str = ""

    @classmethod
    def of(
        cls, certificate: Certificate, *, device_name: str, key_pem: bytes, now: float, enroll_target: str = ""
    ) -> Identity:
        """From what the coordinator issued for our key."""
        from cryptography import x509

        parsed = x509.load_pem_x509_certificate(certificate.certificate_pem)
        return cls(
            device_id=certificate.device_id,
            device_name=device_name,
            key_pem=key_pem.decode(),
            certificate_pem=certificate.certificate_pem.decode(),
            ca_pem=certificate.ca_pem.decode(),
            gateway_target=certificate.gateway_target,
            issued_at=now,
            expires_at=parsed.not_valid_after_utc.timestamp(),
            enroll_target=enroll_target,
        )

    @property
    def renewal_at(self) -> float:
        """When to ask for the next certificate."""
        # Not from the certificate's own beginning, which lies before its issue for the sake of slow clocks.
        return self.issued_at + RENEW_AFTER * (self.expires_at - self.issued_at)


def new_key() -> EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def pem_of(key: EllipticCurvePrivateKey) -> bytes:
    """PKCS #8, unencrypted: the file's mode protects it."""
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_of(identity: Identity) -> EllipticCurvePrivateKey:
    """Its private key; raises Corrupt ``bad_identity``."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    try:
        key = serialization.load_pem_private_key(identity.key_pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise Corrupt("bad_identity", f"the private key cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Corrupt("bad_identity", "the private key is not of an elliptic curve")
    return key


def save(identity: Identity, path: Path) -> None:
    """Replace the file; raises Exhausted ``disk_full``."""
    durable.write_json(path, asdict(identity), mode=0o600)


def load(path: Path) -> Identity:
    """Read the file; raises Unauthenticated ``not_enrolled``, Corrupt ``bad_identity``."""
    raw: Any = durable.read_json(path, code="bad_identity")
    if raw is None:
        raise Unauthenticated("not_enrolled", f"no identity in {path.parent}: run `fogline-agent enroll TOKEN` first")
    try:
        identity = Identity(**raw)
        float(identity.renewal_at)
    except (TypeError, ValueError) as error:
        raise Corrupt("bad_identity", f"{path} is not an identity: {error}", path=str(path)) from error
    return identity
