"""A real MQTT broker (rumqttd, from the wheel iotcore) in a process of its own."""

from __future__ import annotations

import ipaddress
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from iotcore import Broker

_GUARDED = """
id = 0
[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 1048576
max_segment_count = 10
[v4.1]
name = "guarded"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v4.1.tls]
certpath = "{folder}/broker.pem"
keypath = "{folder}/broker.key"
[v4.1.connections]
connection_timeout_ms = 60000
max_payload_size = 20480
max_inflight_count = 100
[v4.1.connections.auth]
device = "secret"
"""


def free_port() -> int:
    """One that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def broker(port: int) -> Broker:
    """Started and stopped as a context."""
    return Broker(port=port, listen="127.0.0.1")


def guarded_broker(port: int, folder: Path) -> Broker:
    """TLS, with ``roots.pem`` in the folder; it takes the user ``device`` with the password ``secret``."""
    own, broker_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    roots = _certificate("a root", own.public_key(), own, authority=True)
    certificate = _certificate("a broker", broker_key.public_key(), own, authority=False)
    (folder / "roots.pem").write_bytes(roots.public_bytes(Encoding.PEM))
    (folder / "broker.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    key = broker_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "broker.key").write_bytes(key)
    (folder / "broker.toml").write_text(_GUARDED.format(port=port, folder=folder))
    return Broker(config_path=str(folder / "broker.toml"))


def _certificate(
    name: str, key: ec.EllipticCurvePublicKey, signer: ec.EllipticCurvePrivateKey, *, authority: bool
) -> x509.Certificate:
    now, address = datetime.now(UTC), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a root")]))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(signer, hashes.SHA256())
    )
