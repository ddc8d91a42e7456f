"""Fixtures: a gateway on loopback, agents that are real processes, a faulty network between them."""

from __future__ import annotations

import asyncio

import pytest
from agent_process import AgentProcess, Cloud, agent_cli
from edge import printed_token
from fault_proxy import FaultProxy

from fogline_server.db.base import utc_now
from fogline_server.devices.authority import CertificateAuthority
from fogline_server.gateway.parts import GatewayOptions
from fogline_server.gateway.server import GatewayServer
from fogline_server.trust.development import ensure_root
from fogline_server.trust.keys import OnlineKeys


@pytest.fixture
def authority(tmp_path) -> CertificateAuthority:
    return CertificateAuthority.open(tmp_path / "keys", "127.0.0.1")


@pytest.fixture
def options() -> GatewayOptions:
    return GatewayOptions(poll_s=0.2, telemetry_every_s=0.5)


@pytest.fixture
def online_keys(sqlite_database, tmp_path) -> OnlineKeys:
    """The coordinator's signing keys, under a root of throwaway keys."""
    keys = OnlineKeys(tmp_path / "keys" / "trust")
    ensure_root(sqlite_database, keys, trust_dir=keys.folder, allowed=True, now=utc_now())
    return keys


@pytest.fixture
async def gateway(sqlite_database, blobs, doorbell, authority, options, online_keys):
    server = GatewayServer(db=sqlite_database, blobs=blobs, doorbell=doorbell, authority=authority, options=options)
    await server.start()
    yield server
    await server.stop(grace=0.2)


@pytest.fixture
async def proxy(gateway):
    """The way to the gateway, when an agent is routed through it."""
    between = FaultProxy(gateway.gateway_port)
    await between.heal()
    yield between
    await between.cut()


@pytest.fixture
def token(sqlite_database, gateway, authority):
    """Prints a fresh token."""
    return lambda **given: printed_token(sqlite_database, gateway, authority.ca_pem, **given)


@pytest.fixture
def cloud(sqlite_database, blobs, online_keys) -> Cloud:
    return Cloud(sqlite_database, blobs, online_keys)


@pytest.fixture
async def enrolled(tmp_path, token):
    """Enrols a device by the command line; its agent is not started. Whatever runs is stopped afterwards."""
    agents: list[AgentProcess] = []

    async def make(name: str = "watch-1", *arguments: object) -> AgentProcess:
        agent = AgentProcess(tmp_path / name)
        done = await asyncio.to_thread(
            agent_cli, "enroll", token(), "--state-dir", agent.state_dir, "--name", name, *arguments
        )
        assert done.returncode == 0, done.stderr
        agents.append(agent)
        return agent

    yield make
    for agent in agents:
        await asyncio.to_thread(agent.stop)
