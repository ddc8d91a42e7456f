"""Serve the local protocol on a loopback port and a unix socket, with uvicorn, inside the caller's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import uvicorn

from fogline_client.inference.predictor import Predictor
from fogline_client.serving.app import DEFAULT_MAX_BODY, InferenceApp
from fogline_shared.errors import Conflict, FoglineError, InvalidInput, Unavailable

_BACKLOG = 128
_UNIX_PATH_LIMIT = 107  # sun_path of Linux, less its terminating zero


class _GuestServer(uvicorn.Server):
    """uvicorn as a guest in the agent's loop: it says when it serves, and leaves signals to the process's owner."""

    def __init__(self, config: uvicorn.Config, ready: asyncio.Event | None) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self._ready is not None:
            self._ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    predictor: Predictor,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    uds_path: Path | None = None,
    ready: asyncio.Event | None = None,
    max_body: int = DEFAULT_MAX_BODY,
) -> None:
    """Serve until cancelled: over TCP when ``port`` is given (0: any), over a unix socket when ``uds_path`` is.

    Sets ``ready`` once both accept. Raises Conflict ``port_in_use``, InvalidInput ``socket_path_too_long``,
    Unavailable ``cannot_listen`` before anything is served.
    """
    sockets = open_sockets(host=host, port=port, uds_path=uds_path)
    await serve_sockets(predictor, sockets, uds_path=uds_path, ready=ready, max_body=max_body)


async def serve_sockets(
    predictor: Predictor,
    sockets: list[socket.socket],
    *,
    uds_path: Path | None = None,
    ready: asyncio.Event | None = None,
    max_body: int = DEFAULT_MAX_BODY,
) -> None:
    """:func:`serve` on sockets that are already bound, for a caller that must know its port first."""
    config = uvicorn.Config(
        InferenceApp(predictor, max_body=max_body),
        lifespan="off",
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=2,
        backlog=_BACKLOG,
    )
    server = _GuestServer(config, ready)
    task = asyncio.create_task(server.serve(sockets=sockets))
    try:
        await asyncio.shield(task)
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for listener in sockets:
            listener.close()
        if uds_path is not None:
            uds_path.unlink(missing_ok=True)


def open_sockets(*, host: str, port: int | None, uds_path: Path | None) -> list[socket.socket]:
    """Bind and listen on what was asked for; on an error nothing stays open. Errors as :func:`serve`."""
    if port is None and uds_path is None:
        raise InvalidInput("nothing_to_serve", "give a port or a socket path")
    sockets: list[socket.socket] = []
    try:
        if port is not None:
            sockets.append(_tcp(host, port))
        if uds_path is not None:
            sockets.append(_unix(uds_path))
    except FoglineError:
        for listener in sockets:
            listener.close()
        raise
    return sockets


def _tcp(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        # Connections inherit it. asyncio sets it only on sockets it made itself; without it the body of every answer
        # waits 40 ms for the client's delayed acknowledgement of its headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict("port_in_use", f"port {port} on {host} is taken by another process", port=port) from error
        raise Unavailable("cannot_listen", f"cannot listen on {host}:{port}: {error}") from error


def _unix(path: Path) -> socket.socket:
    if len(str(path).encode()) > _UNIX_PATH_LIMIT:
        raise InvalidInput("socket_path_too_long", f"a unix socket's path has at most {_UNIX_PATH_LIMIT} bytes: {path}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_dead(path)
        listener.bind(str(path))
        path.chmod(0o660)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable("cannot_listen", f"cannot listen on {path}: {error}") from error
    except FoglineError:
        listener.close()
        raise
    return listener


def _remove_dead(path: Path) -> None:
    """Remove a socket that a killed process left behind; raise Conflict ``port_in_use`` when somebody answers on it."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return  # bind reports a file that is in the way
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise Conflict("port_in_use", f"{path} is served by another process", path=str(path))
