"""How the local endpoint guards itself, as the agent's settings have it (``fogline-agent run --serving name=value``)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields

from fogline_shared.checks import number
from fogline_shared.errors import InvalidInput

_RANGES: Mapping[str, tuple[float, float]] = {
    "grpc_port": (-1, 65535),
    "queue": (1, 100_000),
    "workers": (0, 256),
    "deadline_ms": (0, 3_600_000),
    "connections": (1, 100_000),
    "max_body_mb": (1, 2_000),
    "read_timeout_s": (0.1, 3_600),
    "idle_timeout_s": (0.1, 86_400),
}
_WHOLE = {"grpc_port", "queue", "workers", "connections", "max_body_mb"}


@dataclass(frozen=True, kw_only=True)
class ServingOptions:
    """Raises InvalidInput ``bad_option``, naming the option and its range."""

    # 0: any free port; -1: no gRPC over TCP.
    grpc_port: int = -1
    # Path of a unix socket for gRPC; empty: none.
    grpc_socket: str = ""
    # Requests that may wait while others are answered.
    queue: int = 64
    # Threads that answer what takes longer than an event loop may stand still; 0: one less than the CPUs, at least one.
    workers: int = 0
    # For requests that bring no deadline of their own; 0: they wait for ever.
    deadline_ms: float = 0
    # HTTP connections at the same time.
    connections: int = 256
    # Of one request. All bodies in memory together have four times as much.
    max_body_mb: int = 16
    # Within which a request must have arrived whole, and an answer been taken.
    read_timeout_s: float = 10
    # How long a connection may say nothing between requests.
    idle_timeout_s: float = 75
    # Whether waiting requests may be answered together, where the device's own measurement says that it pays.
    batch: bool = True

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            number(name, getattr(self, name), low=low, high=high, whole=name in _WHOLE, code="bad_option")
        if not isinstance(self.grpc_socket, str):
            raise InvalidInput("bad_option", f"grpc_socket is a path, got {self.grpc_socket!r}")
        if not isinstance(self.batch, bool):
            raise InvalidInput("bad_option", f"batch is true or false, without quotes; got {self.batch!r}")

    @classmethod
    def from_json(cls, given: object) -> ServingOptions:
        """From the settings' file or the command line; what is not said is as by default."""
        known = [each.name for each in fields(cls)]
        if not isinstance(given, Mapping) or (unknown := set(given) - set(known)):
            named = f"{min(unknown, key=str)!r}" if isinstance(given, Mapping) else f"{given!r}"
            raise InvalidInput("bad_option", f"no serving option {named[:100]}; known: {', '.join(known)}")
        return cls(**given)

    @property
    def max_body(self) -> int:
        """Bytes of one request."""
        return self.max_body_mb << 20

    @property
    def serves_grpc(self) -> bool:
        """Whether gRPC was asked for."""
        return self.grpc_port >= 0 or bool(self.grpc_socket)

    @property
    def threads(self) -> int:
        """How many requests are answered at the same time."""
        return self.workers or max(1, len(os.sched_getaffinity(0)) - 1)
