"""What the doctor says of who answers, or does not, at the coordinator's address."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import grpc
from examined_device import Device

from fogline_client.doctor import network
from fogline_client.doctor.patient import Patient
from fogline_server.devices.authority import CertificateAuthority


@contextmanager
def listening(device: Device, context: ssl.SSLContext | None = None) -> Iterator[Patient]:
    """Somebody at the coordinator's address who speaks TLS with a certificate, or says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor() as pool:
        device.enroll(target=f"127.0.0.1:{listener.getsockname()[1]}")
        stop = False

        def serve() -> None:
            held = []
            while not stop:
                held.append(listener.accept()[0])
                if context is not None:
                    with suppress(OSError):
                        held.append(context.wrap_socket(held.pop(), server_side=True))
            for each in held:
                each.close()

        pool.submit(serve)
        yield replace(device.patient(), network=True, timeout_s=0.4)
        stop = True
        socket.create_connection(listener.getsockname()).close()


def tls(folder: Path) -> ssl.SSLContext:
    CertificateAuthority.open(folder, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    context.set_alpn_protocols(["h2"])
    return context


def test_somebody_else_is_at_the_coordinators_address(device: Device, tmp_path: Path) -> None:
    with listening(device) as patient:
        assert [finding.code for finding in network.coordinator(patient)] == ["coordinator_not_secure"]
    with listening(device, tls(tmp_path / "other")) as patient:
        assert [finding.code for finding in network.coordinator(patient)] == ["coordinator_not_trusted"]


def test_coordinator_that_does_not_answer(device: Device, keys: Path) -> None:
    with listening(device, tls(keys)) as patient:
        assert [finding.code for finding in network.coordinator(patient)] == ["coordinator_silent"]


def test_coordinator_that_does_not_know_what_it_is_asked(device: Device, keys: Path) -> None:
    pem = (keys / "server.pem").read_bytes()
    with ThreadPoolExecutor() as pool:
        server = grpc.server(pool)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(pem, pem)]))
        server.start()
        device.enroll(target=f"127.0.0.1:{port}")
        patient = replace(device.patient(), network=True)
        assert [finding.code for finding in network.coordinator(patient)] == ["coordinator_refuses"]
        server.stop(None).wait()
