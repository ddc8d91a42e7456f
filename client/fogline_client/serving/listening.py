"""Where an agent listens: what was asked for, bound before anything is served."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from fogline_client.config import AgentConfig, StateDir
from fogline_client.inference.predictor import Predictor
from fogline_client.serving import server, sockets
from fogline_client.serving.options import ServingOptions
from fogline_shared.errors import Conflict, FoglineError

if TYPE_CHECKING:
    from fogline_client.serving.rpc import GrpcEndpoint

log = structlog.get_logger()


@dataclass(frozen=True, kw_only=True)
class Listening:
    """What is open. False when nothing is."""

    listeners: list[socket.socket] = field(default_factory=list)
    socket_path: Path | None = None
    grpc: GrpcEndpoint | None = None

    @classmethod
    def of(cls, config: AgentConfig, state: StateDir) -> Listening:
        """Bind what the settings ask for, and a unix socket in the folder, if one can be there.

        Raises as :func:`~fogline_client.serving.sockets.open_sockets`.
        """
        port = None if config.serve_port < 0 else config.serve_port
        host, asked = config.serve_host, Path(config.serve_socket) if config.serve_socket else None
        listeners: list[socket.socket] = []
        path = asked
        if port is not None or asked is not None:
            listeners = sockets.open_sockets(host=host, port=port, uds_path=asked)
        if asked is None:
            path, own = _in_folder(state.root.absolute() / "agent.sock")
            listeners += own
        grpc = None
        if config.serving.serves_grpc:
            from fogline_client.serving.rpc import GrpcEndpoint

            grpc = GrpcEndpoint(host, config.serving)
        return cls(listeners=listeners, socket_path=path, grpc=grpc)

    def __bool__(self) -> bool:
        return bool(self.listeners or self.grpc)

    def places(self) -> dict[str, str]:
        """For ``status.json``; empty where nothing listens."""
        names = [listener.getsockname() for listener in self.listeners]
        return {
            "url": next((f"http://{name[0]}:{name[1]}" for name in names if isinstance(name, tuple)), ""),
            "socket": str(self.socket_path) if self.socket_path else "",
            "grpc": ", ".join(self.grpc.targets) if self.grpc else "",
        }

    async def serve(self, predictor: Predictor, options: ServingOptions, more_metrics: Callable[[], str]) -> None:
        """Serve until cancelled."""
        await server.serve_sockets(
            predictor,
            self.listeners,
            uds_path=self.socket_path,
            options=options,
            grpc=self.grpc,
            more_metrics=more_metrics,
        )


def _in_folder(path: Path) -> tuple[Path | None, list[socket.socket]]:
    """The usual socket; none where its path is too long for one, or the disk is read-only: nobody has asked for it."""
    try:
        return path, sockets.open_sockets(host="", port=None, uds_path=path)
    except Conflict:
        raise
    except FoglineError as error:
        log.warning("no unix socket", reason=error.message)
        return None, []
