"""Enrolment and renewal of certificates."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy.orm import Session

from fogline_server.db.base import utc_now
from fogline_server.devices import service as devices
from fogline_server.gateway.parts import Parts
from fogline_server.gateway.status import translated
from fogline_server.jobs.doorbell import EVENTS
from fogline_server.trust import service as trust
from fogline_shared.enrollment import PrintableToken
from fogline_shared.proto import edge_pb2 as pb
from fogline_shared.proto.edge_pb2_grpc import EnrollmentServicer
from fogline_shared.protocol import Certificate
from fogline_shared.wire import certificate_to_pb


class Enrollment(EnrollmentServicer):
    """The service of the enrolment port. ``gateway_target``: where an enrolled device connects next."""

    def __init__(self, parts: Parts, gateway_target: str) -> None:
        self._parts = parts
        self._gateway_target = gateway_target

    async def Enroll(self, request: pb.EnrollRequest, context: Any) -> pb.Certificate:  # noqa: N802 - gRPC's name
        async with translated(context, "Enroll"):
            token = PrintableToken.decode(request.token)
            certificate = await self._parts.write(partial(self._enroll, token, request), EVENTS)
        return certificate_to_pb(certificate)

    def _enroll(self, token: PrintableToken, request: pb.EnrollRequest, session: Session) -> Certificate:
        certificate = devices.enroll(
            session,
            self._parts.authority,
            token_id=token.token_id,
            secret=token.secret,
            device_name=request.device_name,
            csr_pem=request.csr_pem,
            device_class=request.device_class,
            days=self._parts.options.certificate_days,
            gateway_target=self._gateway_target,
            now=utc_now(),
        )
        return replace(certificate, trust_root=trust.first_root(session))

    async def Return(self, request: pb.ReturnRequest, context: Any) -> pb.Certificate:  # noqa: N802 - gRPC's name
        async with translated(context, "Return"):
            certificate = await self._parts.write(partial(self._come_back, request), EVENTS)
        return certificate_to_pb(certificate)

    def _come_back(self, request: pb.ReturnRequest, session: Session) -> Certificate:
        return devices.come_back(
            session,
            self._parts.authority,
            certificate_pem=request.certificate_pem,
            csr_pem=request.csr_pem,
            proof=request.proof,
            days=self._parts.options.certificate_days,
            grace_days=self._parts.options.certificate_grace_days,
            gateway_target=self._gateway_target,
            now=utc_now(),
        )


def renew(parts: Parts, gateway_target: str, device_id: str, csr_pem: bytes, session: Session) -> Certificate:
    """A new certificate for a connected device."""
    return devices.renew(
        session,
        parts.authority,
        device_id=device_id,
        csr_pem=csr_pem,
        days=parts.options.certificate_days,
        gateway_target=gateway_target,
        now=utc_now(),
    )
