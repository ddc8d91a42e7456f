"""What both sides of an enrolment agree on: the printable token, device names, certificate requests.

An operator prints a token; a device trades it, once, for a certificate. The token carries everything the device needs
to reach the coordinator and to trust it: where to enrol and the authority that signed the coordinator's certificate.
``cryptography`` is imported where it is used: a bare install, which only parses tokens and names, does not have it.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fogline_shared.errors import InvalidInput, Unauthenticated

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, CertificateSigningRequest

PREFIX = "fogline-et1."
MAX_TOKEN_CHARS = 16_384
MAX_CSR_BYTES = 16_384

# What is signed is told apart from everything else that the key signs.
_RETURN = b"fogline-return-1\0"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_WORD = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True, kw_only=True)
class PrintableToken:
    """An enrolment token as text: ``fogline-et1.`` + base64url of JSON. ``enroll_target`` is ``host:port``."""

    token_id: str
    secret: str
    enroll_target: str
    ca_pem: bytes

    def encode(self) -> str:
        """The text an operator hands to a device; send it whole as ``EnrollRequest.token``."""
        value = {
            "id": self.token_id,
            "secret": self.secret,
            "enroll": self.enroll_target,
            "ca": self.ca_pem.decode("ascii"),
        }
        raw = json.dumps(value, separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")

    @classmethod
    def decode(cls, text: str) -> PrintableToken:
        """Inverse of :meth:`encode`; raises InvalidInput ``token_malformed``."""
        text = text.strip()
        if not text.startswith(PREFIX) or len(text) > MAX_TOKEN_CHARS:
            raise InvalidInput("token_malformed", f"an enrolment token begins with {PREFIX!r}; was it copied whole?")
        body = text.removeprefix(PREFIX)
        try:
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
            value: dict[str, Any] = json.loads(raw)
            token = cls(
                token_id=str(value["id"]),
                secret=str(value["secret"]),
                enroll_target=str(value["enroll"]),
                ca_pem=str(value["ca"]).encode("ascii"),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInput("token_malformed", "the enrolment token is damaged; was it copied whole?") from error
        if not (_WORD.fullmatch(token.token_id) and _WORD.fullmatch(token.secret)):
            raise InvalidInput("token_malformed", "the enrolment token is damaged; was it copied whole?")
        return token


def check_device_name(name: str) -> str:
    """Return ``name``; raise InvalidInput ``bad_device_name`` unless it is a lower-case DNS label of at most 63 characters."""
    if _NAME.fullmatch(name) is None:
        raise InvalidInput(
            "bad_device_name",
            f"{name[:80]!r} is no device name: 1 to 63 lower-case letters, digits and hyphens, no hyphen first",
        )
    return name


def build_csr(key: EllipticCurvePrivateKey, device_name: str) -> bytes:
    """A PEM certificate request (RFC 2986) whose subject is exactly ``CN=device_name``, signed by ``key`` (P-256)."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.x509.oid import NameOID

    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, check_device_name(device_name))])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM)


def prove_return(key: EllipticCurvePrivateKey, csr_pem: bytes) -> bytes:
    """Show by the key of a certificate that has ended that this request for the next one is its holder's (ECDSA, SHA-256)."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return key.sign(_RETURN + csr_pem, ec.ECDSA(hashes.SHA256()))


def check_return(certificate: Certificate, csr_pem: bytes, proof: bytes) -> None:
    """Raise Unauthenticated ``proof_invalid`` unless the certificate's key made the proof."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = certificate.public_key()
    try:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(proof, _RETURN + csr_pem, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise Unauthenticated("proof_invalid", "the request was not signed by the certificate's key") from error


def parse_csr(csr_pem: bytes) -> tuple[CertificateSigningRequest, str]:
    """The request and the device name it asks for.

    Raises InvalidInput ``csr_invalid`` unless it parses, is signed by its own P-256 key and names exactly one subject.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    if len(csr_pem) > MAX_CSR_BYTES:
        raise InvalidInput("csr_invalid", f"a certificate request has at most {MAX_CSR_BYTES} bytes")
    try:
        request = x509.load_pem_x509_csr(csr_pem)
        key, signed, subject = request.public_key(), request.is_signature_valid, list(request.subject)
    except Exception as error:  # the parser of hostile bytes raises many types
        raise InvalidInput("csr_invalid", "the certificate request does not parse") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise InvalidInput("csr_invalid", "the certificate request's key is not an elliptic-curve P-256 key")
    if not signed:
        raise InvalidInput("csr_invalid", "the certificate request is not signed by its own key")
    if len(subject) != 1 or subject[0].oid != NameOID.COMMON_NAME:
        raise InvalidInput("csr_invalid", "the certificate request's subject is not exactly one common name")
    return request, str(subject[0].value)
