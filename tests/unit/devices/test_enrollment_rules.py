"""Printable tokens, device names, certificate requests, and what may be stored of a device."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from fogline_server.devices.rules import check_attributes, check_device_class, check_hello, check_tags
from fogline_shared.enrollment import PREFIX, PrintableToken, build_csr, check_device_name, parse_csr
from fogline_shared.errors import InvalidInput
from fogline_shared.protocol import Hello

TOKEN = PrintableToken(token_id="tok_1", secret="s3cret-_", enroll_target="[::1]:8472", ca_pem=b"-----BEGIN\n")


def packed(value: object) -> str:
    return PREFIX + base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def test_a_token_survives_printing_and_pasting():
    assert PrintableToken.decode(f"  {TOKEN.encode()}\n") == TOKEN


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fogline-et1.",
        "fogline-et1.%%%",
        "fogline-et2." + TOKEN.encode().removeprefix(PREFIX),
        TOKEN.encode()[:-9],
        packed([]),
        packed({"id": "tok_1"}),
        packed({"id": "tok\u00001", "secret": "s", "enroll": "h:1", "ca": "x"}),
        packed({"id": "tok_1", "secret": "\ud800", "enroll": "h:1", "ca": "x"}),
        PREFIX + "A" * 20_000,
    ],
)
def test_a_damaged_token_is_refused(text):
    with pytest.raises(InvalidInput) as caught:
        PrintableToken.decode(text)
    assert caught.value.code == "token_malformed"


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=200))
def test_no_text_does_worse_to_the_decoder_than_be_refused(text):
    for candidate in (text, PREFIX + text):
        with pytest.raises(InvalidInput):
            PrintableToken.decode(candidate)


@pytest.mark.parametrize("name", ["a", "watch-7", "7", "a" * 63])
def test_good_names(name):
    assert check_device_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "A", "a_b", "a.b", "ä", "a" * 64, "a\n", "a\0"])
def test_bad_names(name):
    with pytest.raises(InvalidInput, match="bad_device_name"):
        check_device_name(name)


def request(key, *attributes) -> bytes:
    subject = x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def test_an_honest_request_is_taken():
    assert parse_csr(build_csr(ec.generate_private_key(ec.SECP256R1()), "watch-1"))[1] == "watch-1"


def tampered() -> bytes:
    """A request whose subject was changed after it was signed."""
    der = x509.load_pem_x509_csr(build_csr(ec.generate_private_key(ec.SECP256R1()), "watch-1")).public_bytes(
        serialization.Encoding.DER
    )
    body = base64.encodebytes(der.replace(b"watch-1", b"watch-2"))
    return b"-----BEGIN CERTIFICATE REQUEST-----\n" + body + b"-----END CERTIFICATE REQUEST-----\n"


@pytest.mark.parametrize(
    "csr",
    [
        lambda: b"",
        lambda: b"x" * 20_000,
        lambda: b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        lambda: request(ec.generate_private_key(ec.SECP384R1()), (NameOID.COMMON_NAME, "watch-1")),
        lambda: request(rsa.generate_private_key(65537, 2048), (NameOID.COMMON_NAME, "watch-1")),
        lambda: request(ec.generate_private_key(ec.SECP256R1())),
        lambda: request(ec.generate_private_key(ec.SECP256R1()), (NameOID.ORGANIZATION_NAME, "watch-1")),
        lambda: request(
            ec.generate_private_key(ec.SECP256R1()),
            (NameOID.COMMON_NAME, "watch-1"),
            (NameOID.COMMON_NAME, "watch-2"),
        ),
        tampered,
    ],
    ids=["empty", "too-long", "no-asn1", "p384", "rsa", "no-name", "organisation", "two-names", "tampered"],
)
def test_a_bad_request_is_refused(csr):
    with pytest.raises(InvalidInput) as caught:
        parse_csr(csr())
    assert caught.value.code == "csr_invalid"


def test_tags_are_sorted_and_unique():
    assert check_tags(["b", "site:berlin", "a", "b"]) == ["a", "b", "site:berlin"]


@pytest.mark.parametrize("tags", [[""], ['"'], ["a b"], ["a\0"], ["x" * 64], [str(i) for i in range(33)]])
def test_bad_tags(tags):
    with pytest.raises(InvalidInput, match="bad_tag"):
        check_tags(tags)


def test_a_device_class_has_a_default():
    assert (check_device_class(""), check_device_class("pi-4")) == ("generic", "pi-4")
    with pytest.raises(InvalidInput, match="bad_device_class"):
        check_device_class("Pi 4")


@pytest.mark.parametrize("value", ["\0", "\ud800", "x" * 1001, float("nan"), float("inf"), 2**63, -(2**63) - 1])
def test_an_attribute_no_database_can_store_is_refused(value):
    assert check_attributes({"good": 2**63 - 1, "on": True, "text": "日本", "share": 0.5})
    with pytest.raises(InvalidInput, match="bad_attributes"):
        check_attributes({"bad": value})


@pytest.mark.parametrize(
    "changes",
    [
        {"boot_id": "b" * 61},
        {"boot_id": "b\0"},
        {"agent_version": "v" * 41},
        {"recipes": ("r",) * 65},
        {"recipes": ("r\0",)},
        {"active_digest": "abc"},
        {"generation": 2**63},
    ],
)
def test_a_hello_that_cannot_be_stored_is_refused(changes):
    honest = {"boot_id": "b", "agent_version": "1", "recipes": ("tiny",), "active_digest": "a" * 64}
    assert check_hello(Hello(**honest))
    with pytest.raises(InvalidInput, match="bad_hello"):
        check_hello(Hello(**{**honest, **changes}))
