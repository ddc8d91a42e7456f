"""The fleet's certificate authority on disk."""

from __future__ import annotations

import stat
import subprocess
import sys
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from fogline_server.db.base import utc_now
from fogline_server.devices.authority import CertificateAuthority
from fogline_shared.enrollment import build_csr
from fogline_shared.errors import Corrupt


def signed(authority: CertificateAuthority) -> x509.Certificate:
    csr = build_csr(ec.generate_private_key(ec.SECP256R1()), "watch-1")
    return x509.load_pem_x509_certificate(authority.sign_device(csr, common_name="dev_1", days=2, now=utc_now())[0])


def test_a_second_start_finds_the_same_authority(tmp_path):
    first, second = (CertificateAuthority.open(tmp_path / "keys", "edge.example.org") for _ in range(2))
    assert first.ca_pem == second.ca_pem
    assert first.server_key_cert() == second.server_key_cert()
    root = x509.load_pem_x509_certificate(second.ca_pem)
    signed(first).verify_directly_issued_by(root)
    x509.load_pem_x509_certificate(first.server_pem).verify_directly_issued_by(root)


def test_nobody_else_reads_the_keys(tmp_path):
    CertificateAuthority.open(tmp_path / "keys", "localhost")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()} == {0o600}


def test_another_advertised_host_gets_a_new_server_certificate_under_the_same_root(tmp_path):
    before = CertificateAuthority.open(tmp_path, "10.0.0.1")
    after = CertificateAuthority.open(tmp_path, "edge.example.org")
    assert before.ca_pem == after.ca_pem
    assert before.server_pem != after.server_pem
    names = x509.load_pem_x509_certificate(after.server_pem).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert "edge.example.org" in names.value.get_values_for_type(x509.DNSName)


def test_a_device_certificate_is_for_clients_only_and_names_what_the_authority_says(tmp_path):
    certificate = signed(CertificateAuthority.open(tmp_path, "localhost"))
    assert certificate.subject.rfc4514_string() == "CN=dev_1"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert abs(certificate.not_valid_after_utc - utc_now() - timedelta(days=2)) < timedelta(minutes=1)


REPLICA = """
import sys, pathlib
from fogline_server.devices.authority import CertificateAuthority
sys.stdout.write(CertificateAuthority.open(pathlib.Path(sys.argv[1]), "localhost").ca_pem.decode())
"""


def test_replicas_that_start_together_agree(tmp_path):
    command = [sys.executable, "-c", REPLICA, str(tmp_path / "keys")]
    replicas = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(3)]
    roots = [replica.communicate(timeout=60)[0] for replica in replicas]
    assert roots[0].startswith(b"-----BEGIN CERTIFICATE")
    assert len(set(roots)) == 1


def test_a_start_killed_before_the_root_certificate_was_written_starts_anew(tmp_path):
    CertificateAuthority.open(tmp_path, "localhost")
    for name in ("ca.pem", "server.pem"):
        (tmp_path / name).unlink()
    signed(CertificateAuthority.open(tmp_path, "localhost"))


def test_a_damaged_or_missing_key_is_named(tmp_path):
    CertificateAuthority.open(tmp_path, "localhost")
    (tmp_path / "ca.key").write_bytes(b"not a key")
    with pytest.raises(Corrupt, match=r"ca\.key"):
        CertificateAuthority.open(tmp_path, "localhost")
    (tmp_path / "ca.key").unlink()
    with pytest.raises(Corrupt, match="key_damaged"):
        CertificateAuthority.open(tmp_path, "localhost")
