"""A gateway on loopback over a real database and a real Redis."""

from __future__ import annotations

import pytest
from edge import RawDevice, enroll, new_key, printed_token

from fogline_server.devices.authority import CertificateAuthority
from fogline_server.gateway.parts import GatewayOptions
from fogline_server.gateway.server import GatewayServer


@pytest.fixture
def authority(tmp_path) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path / "keys", "127.0.0.1")


@pytest.fixture
def options() -> GatewayOptions:
    """Short times; a test module may override it."""
    return GatewayOptions(poll_s=0.3, idle_s=2.0, infer_per_minute=3)


@pytest.fixture
async def gateway(sqlite_database, blobs, doorbell, authority, options):
    server = GatewayServer(db=sqlite_database, blobs=blobs, doorbell=doorbell, authority=authority, options=options)
    await server.start()
    yield server
    await server.stop(grace=0.2)


@pytest.fixture
def token(sqlite_database, gateway, authority):
    """Prints a fresh token: ``token(device_name=…)``."""
    return lambda **options: printed_token(sqlite_database, gateway, authority.ca_pem, **options)


@pytest.fixture
def device(token):
    """Enrols a device over the wire: ``await device("name")``."""

    async def make(name: str = "watch-1", **options) -> RawDevice:
        key = new_key()
        return RawDevice(name=name, key=key, certificate=await enroll(token(**options), name, key))

    return make
