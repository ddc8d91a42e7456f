"""Enrolment and renewal over real TLS: who gets a certificate, who does not, and why."""

from __future__ import annotations

from datetime import timedelta

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from edge import RawDevice, add_run, add_task, code_of, enroll, key_pem, new_key

from fogline_server.db.base import utc_now
from fogline_server.devices import service as devices
from fogline_server.devices.authority import CertificateAuthority
from fogline_server.devices.tables import Device
from fogline_shared.enrollment import PrintableToken, build_csr
from fogline_shared.errors import Unavailable
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.proto.edge_pb2_grpc import EdgeStub, EnrollmentStub
from fogline_shared.protocol import Pace


async def refused(token: str, name: str = "watch-1", csr_pem: bytes = b"") -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await enroll(token, name, new_key(), csr_pem)
    return caught.value.code(), code_of(caught.value)


async def test_a_token_is_all_a_device_needs(token, device, sqlite_database, gateway):
    watch = await device("watch-1", tags=("demo",))
    certificate = x509.load_pem_x509_certificate(watch.certificate.certificate_pem)
    assert certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == watch.id
    assert watch.certificate.gateway_target == gateway.gateway_target
    with sqlite_database.read() as session:
        row = session.get(Device, watch.id)
    assert (row.name, row.tags, row.state) == ("watch-1", ["demo"], "PENDING")
    async with watch.sync() as sync:
        await sync.receive(Pace)


async def test_a_used_token_is_refused_and_the_first_device_stays(token):
    text = token()
    await enroll(text, "watch-1", new_key())
    assert await refused(text, "watch-2") == (grpc.StatusCode.UNAUTHENTICATED, "token_used")


async def test_a_refused_request_does_not_use_the_token_up(token):
    text = token(device_name="watch-1")
    assert await refused(text, "watch-2") == (grpc.StatusCode.PERMISSION_DENIED, "token_for_other_device")
    assert await refused(text, csr_pem=build_csr(new_key(), "watch-9")) == (
        grpc.StatusCode.PERMISSION_DENIED,
        "csr_for_other_device",
    )
    assert await refused(text, csr_pem=b"-----BEGIN NONSENSE") == (grpc.StatusCode.INVALID_ARGUMENT, "csr_invalid")
    assert (await enroll(text, "watch-1", new_key())).device_id.startswith("dev_")


async def test_wrong_tokens_are_refused(token, gateway, authority):
    forged = PrintableToken(
        token_id=PrintableToken.decode(token()).token_id,
        secret="guessed",
        enroll_target=gateway.enroll_target,
        ca_pem=authority.ca_pem,
    ).encode()
    assert await refused(forged) == (grpc.StatusCode.UNAUTHENTICATED, "token_unknown")
    long_ago = utc_now() - timedelta(days=2)
    assert await refused(token(now=long_ago)) == (grpc.StatusCode.UNAUTHENTICATED, "token_expired")
    async with grpc.aio.secure_channel(
        gateway.enroll_target, grpc.ssl_channel_credentials(authority.ca_pem)
    ) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await EnrollmentStub(channel).Enroll(pb.EnrollRequest(token="fogline-et1.%%%"), timeout=5)
    assert code_of(caught.value) == "token_malformed"


async def test_a_taken_name_is_refused(token, device):
    await device("watch-1")
    assert await refused(token(), "watch-1") == (grpc.StatusCode.FAILED_PRECONDITION, "device_name_taken")


async def test_a_device_renews_with_a_new_key(device):
    watch = await device()
    key = new_key()
    async with watch.edge() as stub:
        renewed = await stub.Renew(pb.RenewRequest(csr_pem=build_csr(key, watch.name)), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Renew(pb.RenewRequest(csr_pem=build_csr(key, "watch-2")), timeout=5)
    assert code_of(caught.value) == "csr_for_other_device"
    again = RawDevice(name=watch.name, key=key, certificate=watch.certificate)
    again.certificate = type(watch.certificate)(
        device_id=watch.id,
        certificate_pem=renewed.certificate_pem,
        ca_pem=renewed.ca_pem,
        gateway_target=renewed.gateway_target,
    )
    async with again.sync() as sync:
        await sync.receive(Pace)


async def test_a_revoked_device_is_refused_on_every_call(device, sqlite_database, doorbell):
    watch, other = await device("watch-1"), await device("watch-2")
    task_id = add_task(sqlite_database, add_run(sqlite_database), watch.id)
    async with watch.sync() as sync, other.sync() as healthy:
        await sync.receive(Pace)
        with sqlite_database.transaction() as session:
            devices.revoke(session, watch.id, now=utc_now(), actor="test")
        doorbell.ring("fogline:devices", watch.id)
        assert await sync.ended_with() == "device_revoked"
        await healthy.send({"battery_percent": 50})
        await healthy.receive(Pace)

    async def renew() -> None:
        async with watch.edge() as stub:
            await stub.Renew(pb.RenewRequest(csr_pem=build_csr(new_key(), watch.name)), timeout=5)

    async def infer() -> None:
        async with watch.edge() as stub:
            await stub.Infer(pb.InferRequest(release_id="rel_1", input=b"\0\0\0\0", shape=[1]), timeout=5)

    for call in (renew(), infer(), watch.fetch("0" * 64), watch.upload(task_id)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert (caught.value.code(), code_of(caught.value)) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "device_revoked",
        )
    async with watch.sync() as sync:
        assert await sync.ended_with() == "device_revoked"


async def test_without_a_certificate_of_our_authority_there_is_no_connection(gateway, authority, tmp_path):
    stranger = CertificateAuthority.open(tmp_path / "elsewhere", "127.0.0.1")
    key = new_key()
    foreign_pem, _, _ = stranger.sign_device(build_csr(key, "dev-x"), common_name="dev_x", days=1, now=utc_now())
    for credentials in (
        grpc.ssl_channel_credentials(authority.ca_pem),
        grpc.ssl_channel_credentials(authority.ca_pem, key_pem(key), foreign_pem),
        # The coordinator's own certificate is none of a device.
        grpc.ssl_channel_credentials(authority.ca_pem, *authority.server_key_cert()),
    ):
        async with grpc.aio.secure_channel(gateway.gateway_target, credentials) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await EdgeStub(channel).Renew(pb.RenewRequest(), timeout=3)
        assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_an_expired_certificate_is_no_connection(device, authority):
    watch = await device()
    pem, _, _ = authority.sign_device(
        build_csr(watch.key, watch.name), common_name=watch.id, days=1, now=utc_now() - timedelta(days=3)
    )
    watch.certificate = type(watch.certificate)(
        device_id=watch.id,
        certificate_pem=pem,
        ca_pem=watch.certificate.ca_pem,
        gateway_target=watch.certificate.gateway_target,
    )
    async with watch.edge() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Renew(pb.RenewRequest(), timeout=3)
    assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_a_port_in_use_is_named(gateway, sqlite_database, blobs, doorbell, authority, options):
    taken = type(options)(gateway_port=gateway.gateway_port)
    second = type(gateway)(db=sqlite_database, blobs=blobs, doorbell=doorbell, authority=authority, options=taken)
    with pytest.raises(Unavailable, match=str(gateway.gateway_port)) as caught:
        await second.start()
    assert caught.value.code == "port_in_use"
