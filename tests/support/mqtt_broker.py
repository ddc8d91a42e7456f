"""A real MQTT broker (rumqttd, from the wheel iotcore) in a process of its own."""

from __future__ import annotations

import socket

from iotcore import Broker


def free_port() -> int:
    """One that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def broker(port: int) -> Broker:
    """Started and stopped as a context."""
    return Broker(port=port, listen="127.0.0.1")
