"""Trade a token for an identity, and an identity near its end for the next one."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from fogline_client import channel
from fogline_client.identity import Identity, key_of, new_key, pem_of
from fogline_shared import wire
from fogline_shared.enrollment import PrintableToken, build_csr, prove_return
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.proto.edge_pb2_grpc import EdgeStub, EnrollmentStub

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_TIMEOUT_S = 20.0


async def enroll(text: str, *, device_name: str, device_class: str) -> tuple[Identity, bytes]:
    """Use a token: who this device is from now on, and the root of trust to begin with (empty: there is none yet).

    The private key never leaves this device.

    Raises InvalidInput ``token_malformed`` or ``bad_device_name``, Unauthenticated ``token_unknown``, ``token_used``,
    ``token_expired`` …, Conflict ``device_name_taken``, Unavailable ``gateway_unavailable``.
    """
    token = PrintableToken.decode(text)
    key = new_key()
    request = pb.EnrollRequest(
        token=text.strip(), device_name=device_name, csr_pem=build_csr(key, device_name), device_class=device_class
    )
    async with channel.server_tls(token.enroll_target, token.ca_pem) as open_channel:
        with channel.translated():
            issued = wire.certificate_from_pb(await EnrollmentStub(open_channel).Enroll(request, timeout=_TIMEOUT_S))
    identity = Identity.of(
        issued,
        device_name=device_name,
        key_pem=pem_of(key),
        now=time.time(),
        enroll_target=token.enroll_target,
    )
    return identity, issued.trust_root


async def renew(identity: Identity) -> Identity:
    """The next identity of the same device, with a fresh key; raises as the gateway answers."""
    key = new_key()
    async with channel.mutual_tls(identity) as open_channel:
        with channel.translated():
            issued = await EdgeStub(open_channel).Renew(
                pb.RenewRequest(csr_pem=build_csr(key, identity.device_name)), timeout=_TIMEOUT_S
            )
    return _next(identity, issued, key)


async def come_back(identity: Identity) -> Identity:
    """:func:`renew` for a device whose certificate has ended: over the enrolment port, by proof that it holds the key.

    Raises Unauthenticated ``certificate_too_old``, and as the coordinator answers.
    """
    key = new_key()
    csr_pem = build_csr(key, identity.device_name)
    request = pb.ReturnRequest(
        certificate_pem=identity.certificate_pem.encode(),
        csr_pem=csr_pem,
        proof=prove_return(key_of(identity), csr_pem),
    )
    async with channel.server_tls(identity.enroll_target, identity.ca_pem.encode()) as open_channel:
        with channel.translated():
            issued = await EnrollmentStub(open_channel).Return(request, timeout=_TIMEOUT_S)
    return _next(identity, issued, key)


def _next(identity: Identity, issued: pb.Certificate, key: EllipticCurvePrivateKey) -> Identity:
    return Identity.of(
        wire.certificate_from_pb(issued),
        device_name=identity.device_name,
        key_pem=pem_of(key),
        now=time.time(),
        enroll_target=identity.enroll_target,
    )
