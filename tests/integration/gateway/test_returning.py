"""A device that was offline beyond its certificate's end comes back by itself, and nobody else in its place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta

import grpc
import pytest
from edge import RawDevice, code_of, key_pem, new_key

from fogline_server.db.base import utc_now
from fogline_server.devices import service as devices
from fogline_server.devices.authority import CertificateAuthority
from fogline_shared.enrollment import build_csr, prove_return
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.proto.edge_pb2_grpc import EnrollmentStub
from fogline_shared.protocol import Pace

Ask = Callable[..., Awaitable[pb.Certificate]]


def ended(authority: CertificateAuthority, device: RawDevice, *, days_ago: float) -> bytes:
    """What the device would have, had its certificate ended so many days ago."""
    then = utc_now() - timedelta(days=days_ago + 30)
    return authority.sign_device(build_csr(device.key, device.name), common_name=device.id, days=30, now=then)[0]


@pytest.fixture
def ask(gateway, authority) -> Ask:
    """A Return call as the device makes it, but for what is given."""

    async def ask(device: RawDevice, days_ago: float = 10, **given: object) -> pb.Certificate:
        csr_pem = given.pop("csr_pem", build_csr(new_key(), device.name))
        given.setdefault("certificate_pem", ended(authority, device, days_ago=days_ago))
        given.setdefault("proof", prove_return(device.key, csr_pem))
        credentials = grpc.ssl_channel_credentials(authority.ca_pem)
        async with grpc.aio.secure_channel(gateway.enroll_target, credentials) as channel:
            return await EnrollmentStub(channel).Return(pb.ReturnRequest(csr_pem=csr_pem, **given), timeout=10)

    return ask


async def refused(answer: Awaitable[object]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return code_of(caught.value)


async def test_the_certificate_is_renewed_and_works(device, ask, gateway) -> None:
    watch, key = await device("watch-1"), new_key()
    answer = await ask(watch, csr_pem=build_csr(key, watch.name))
    assert (answer.device_id, answer.gateway_target) == (watch.id, gateway.gateway_target)
    certificate = replace(watch.certificate, certificate_pem=answer.certificate_pem)
    async with RawDevice(name="watch-1", key=key, certificate=certificate).sync() as sync:
        await sync.receive(Pace)


async def test_ended_long_ago(device, ask, options) -> None:
    watch = await device("watch-1")
    assert (await ask(watch, days_ago=options.certificate_grace_days - 1)).device_id == watch.id
    assert await refused(ask(watch, days_ago=options.certificate_grace_days + 1)) == "certificate_too_old"


async def test_who_holds_only_the_certificate_gets_none(device, ask) -> None:
    watch, thief = await device("watch-1"), new_key()
    csr_pem = build_csr(thief, watch.name)
    for proof in (
        prove_return(thief, csr_pem),
        prove_return(watch.key, build_csr(watch.key, watch.name)),  # overheard, for another key
        b"",
        b"x" * 5000,
    ):
        assert await refused(ask(watch, csr_pem=csr_pem, proof=proof)) == "proof_invalid"


async def test_certificates_of_others(device, ask, authority, tmp_path) -> None:
    watch = await device("watch-1")
    other = CertificateAuthority.open(tmp_path / "other", "127.0.0.1")
    forged = ended(other, watch, days_ago=1)
    for certificate in (forged, authority.server_pem, authority.ca_pem, b"", b"-----BEGIN NONSENSE", b"a" * 20_000):
        assert await refused(ask(watch, certificate_pem=certificate)) == "certificate_unknown"


async def test_a_device_that_was_revoked_stays_so(device, ask, sqlite_database) -> None:
    watch = await device("watch-1")
    now: datetime = utc_now()
    with sqlite_database.transaction() as session:
        devices.revoke(session, watch.id, now=now, actor="test")
    assert await refused(ask(watch)) == "device_revoked"


async def test_nobody_comes_back_under_another_name(device, ask) -> None:
    watch, other = await device("watch-1"), await device("watch-2")
    assert key_pem(watch.key) != key_pem(other.key)
    assert await refused(ask(watch, csr_pem=build_csr(new_key(), "watch-2"))) == "csr_for_other_device"
    assert await refused(ask(watch, csr_pem=b"-----BEGIN NONSENSE")) == "csr_invalid"
