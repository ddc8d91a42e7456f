"""Whether the coordinator can be reached, is ours, and takes us: step by step, and the first that fails is told."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator

from fogline_client.doctor.findings import Finding
from fogline_client.doctor.patient import Patient
from fogline_client.identity import Identity
from fogline_shared.errors import FoglineError, Forbidden, Unauthenticated

_MEANS = "the device is offline: it predicts, keeps its telemetry and its answers, and gets no update"


def coordinator(patient: Patient) -> Iterator[Finding]:
    """Name, port, certificate, right to connect."""
    identity = patient.identity
    if identity is None or not patient.network:
        return
    host, _, port = identity.gateway_target.rpartition(":")
    host = host.strip("[]")
    try:
        socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        do = f"see that the network is up and that its name server knows {host}"
        found = f"the name {host!r} of the coordinator is not found: {error}"
        yield Finding("coordinator_name_unknown", found, _MEANS, do, serious=False)
        return
    try:
        connection = socket.create_connection((host, int(port)), timeout=patient.timeout_s)
    except OSError as error:
        found = f"the coordinator at {identity.gateway_target} does not answer: {error}"
        do = "see that the network is up, that no firewall is between, and that the coordinator runs"
        yield Finding("coordinator_unreachable", found, _MEANS, do, serious=False)
        return
    with connection:
        not_ours = _not_ours(identity, connection, host)
    if not_ours is not None:
        yield not_ours
        return
    yield from _refusal(identity, patient.timeout_s)


def _not_ours(identity: Identity, connection: socket.socket, host: str) -> Finding | None:
    try:
        context = ssl.create_default_context(cadata=identity.ca_pem)
        context.set_alpn_protocols(["h2"])
        context.wrap_socket(connection, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        return Finding(
            "coordinator_not_trusted",
            f"{identity.gateway_target} does not prove that it is the coordinator: {error.verify_message}",
            _MEANS,
            "check the clock; if the coordinator was set up anew, this device must enrol again",
        )
    except (ssl.SSLError, OSError) as error:
        found = f"no secure connection to {identity.gateway_target}: {error}"
        do = "something that is no coordinator answers there, or breaks connections (a proxy, a portal that wants a login)"
        return Finding("coordinator_not_secure", found, _MEANS, do, serious=False)
    return None


def _refusal(identity: Identity, timeout_s: float) -> Iterator[Finding]:
    try:
        asyncio.run(_ask(identity, timeout_s))
    except (Unauthenticated, Forbidden) as error:
        do = "enrol again with a new token (`fogline-agent enroll TOKEN --replace`), if the owner of the fleet agrees"
        yield Finding(error.code, error.message, f"the coordinator refuses this device; {_MEANS}", do)
    except FoglineError as error:
        found = f"the coordinator does not serve this device: {error}"
        yield Finding("coordinator_refuses", found, _MEANS, "see the coordinator's log", serious=False)
    except TimeoutError:
        found = f"the coordinator does not answer within {timeout_s:g} s"
        yield Finding("coordinator_silent", found, _MEANS, "see the coordinator's log", serious=False)


async def _ask(identity: Identity, timeout_s: float) -> None:
    """The cheapest question that needs the right to connect."""
    from fogline_client import channel, transfer

    async with asyncio.timeout(timeout_s), channel.mutual_tls(identity) as opened:
        await transfer.metadata(opened, "timestamp.json")


CHECKS = (coordinator,)
