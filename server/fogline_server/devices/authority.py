"""The fleet's certificate authority: its own root, the coordinator's certificate, the devices' certificates.

Everything is made on first start in one folder (mode 0700, files 0600). Two replicas that share the folder and start
together agree: a file lock is held while anything is made, and a file appears whole or not at all.
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fogline_shared.enrollment import MAX_CSR_BYTES, parse_csr
from fogline_shared.errors import Corrupt, Unauthenticated

_CA_DAYS = 3650
_SERVER_DAYS = 397
# A server certificate with less than this left is made anew at the next start.
_SERVER_MARGIN = timedelta(days=60)
# Devices' clocks are slow and fast by minutes; certificates begin in the past.
_SKEW = timedelta(minutes=10)


# RFC 5280 §4.2.1.3: an authority says that its key signs certificates.
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True, kw_only=True)
class CertificateAuthority:
    """Signs devices. ``server_key_pem`` and ``server_pem`` are what the gateway's ports present."""

    ca_pem: bytes
    server_key_pem: bytes
    server_pem: bytes
    _key: ec.EllipticCurvePrivateKey
    _certificate: x509.Certificate

    @classmethod
    def open(cls, key_dir: Path, advertised_host: str) -> CertificateAuthority:
        """Load the authority of a folder, making what is missing. ``advertised_host``: DNS name or IP address.

        The server certificate is made anew when the host changed or its end is near; devices keep trusting the root.
        Raises Corrupt ``key_damaged`` when a file cannot be read as what it should be.
        """
        key_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_dir.chmod(0o700)
        with _locked(key_dir / "lock"):
            ca_key, ca = _load_or_make_root(key_dir)
            server_key, server = _load_or_make_server(key_dir, ca_key, ca, advertised_host)
        return cls(
            ca_pem=_pem(ca),
            server_key_pem=_key_pem(server_key),
            server_pem=_pem(server),
            _key=ca_key,
            _certificate=ca,
        )

    def server_key_cert(self) -> tuple[bytes, bytes]:
        """Private key and certificate (PEM) that the coordinator's TLS ports present."""
        return self.server_key_pem, self.server_pem

    def sign_device(
        self, csr_pem: bytes, *, common_name: str, days: float, now: datetime
    ) -> tuple[bytes, str, datetime]:
        """A client certificate for the request's key: PEM, serial (hexadecimal), end of validity.

        The subject is ``common_name``, whatever the request says. Raises InvalidInput ``csr_invalid``.
        """
        request, _ = parse_csr(csr_pem)
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # parse_csr takes no other
        not_after = (now + timedelta(days=days)).replace(microsecond=0)
        certificate = (
            _builder(common_name, self._certificate.subject, key, now - _SKEW, not_after)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return _pem(certificate), f"{certificate.serial_number:x}", not_after

    def holder_of(self, certificate_pem: bytes, *, now: datetime, grace: timedelta) -> tuple[str, x509.Certificate]:
        """The device that a certificate was issued to, which may have ended up to ``grace`` ago; and the certificate.

        Raises Unauthenticated ``certificate_unknown``, ``certificate_too_old``.
        """
        try:
            if len(certificate_pem) > MAX_CSR_BYTES:
                raise ValueError("it is too long")
            certificate = x509.load_pem_x509_certificate(certificate_pem)
            certificate.verify_directly_issued_by(self._certificate)
            usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            if ExtendedKeyUsageOID.CLIENT_AUTH not in usage:
                raise ValueError("it is no device's")
        except Exception as error:  # the parser of hostile bytes raises many types
            raise Unauthenticated("certificate_unknown", "the certificate was not issued to a device here") from error
        if now - certificate.not_valid_after_utc > grace:
            text = f"the certificate ended {certificate.not_valid_after_utc:%Y-%m-%d}, more than {grace.days} days ago"
            raise Unauthenticated("certificate_too_old", f"{text}: enrol again with a token")
        return str(name.value), certificate


def _load_or_make_root(key_dir: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key_path, certificate_path = key_dir / "ca.key", key_dir / "ca.pem"
    if certificate_path.exists():
        return _load_key(key_path), _load_certificate(certificate_path)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = _name("fogline fleet authority")
    certificate = (
        _builder("fogline fleet authority", name, key.public_key(), now - _SKEW, now + timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    # The certificate last: it is what tells the next start that the key beside it is whole.
    _write(key_path, _key_pem(key))
    _write(certificate_path, _pem(certificate))
    return key, certificate


def _load_or_make_server(
    key_dir: Path, ca_key: ec.EllipticCurvePrivateKey, ca: x509.Certificate, host: str
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    path, now = key_dir / "server.pem", datetime.now(UTC)
    names = _alternative_names(host)
    if path.exists():
        # Key and certificate in one file: replaced together or not at all.
        key, certificate = _load_key(path), _load_certificate(path)
        known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if known == names and certificate.not_valid_after_utc > now + _SERVER_MARGIN:
            return key, certificate
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder("fogline coordinator", ca.subject, key.public_key(), now - _SKEW, now + timedelta(days=_SERVER_DAYS))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    _write(path, _key_pem(key) + _pem(certificate))
    return key, certificate


def _alternative_names(host: str) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for each in dict.fromkeys((host, "localhost", "127.0.0.1", "::1")):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(each)))
        except ValueError:
            names.append(x509.DNSName(each))
    return x509.SubjectAlternativeName(names)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    common_name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(common_name))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, FileNotFoundError) as error:
        raise Corrupt("key_damaged", f"{path} is missing or holds no private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Corrupt("key_damaged", f"the key in {path} is not an elliptic-curve key")
    return key


def _load_certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise Corrupt("key_damaged", f"{path} holds no certificate") from error


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, readable by the owner only (mkstemp's mode), on disk before it counts."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
