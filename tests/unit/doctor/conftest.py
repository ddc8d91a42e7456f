from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from examined_device import Device

from fogline_client.lock import only_agent
from fogline_server.devices.authority import CertificateAuthority


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def authority(keys: Path) -> CertificateAuthority:
    return CertificateAuthority.open(keys, "127.0.0.1")


@pytest.fixture
def device(tmp_path: Path, authority: CertificateAuthority) -> Device:
    return Device.make(tmp_path / "watch-1", authority)


@pytest.fixture
def agent(device: Device) -> Iterator[None]:
    """Hold the folder as a running agent does."""
    with only_agent(device.state.lock):
        yield
