"""Addresses of the local endpoint: a loopback port and a unix socket, bound before anything is served."""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path

from fogline_shared.errors import Conflict, FoglineError, InvalidInput, Unavailable

BACKLOG = 128
_UNIX_PATH_LIMIT = 107  # sun_path of Linux, less its terminating zero
# A unix socket is for the agent's user and group.
UNIX_MODE = 0o660


def open_sockets(*, host: str, port: int | None, uds_path: Path | None) -> list[socket.socket]:
    """Bind and listen on what was asked for; on an error nothing stays open.

    Raises Conflict ``port_in_use``, InvalidInput ``socket_path_too_long`` or ``nothing_to_serve``, Unavailable
    ``cannot_listen``.
    """
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
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # Connections inherit it. asyncio sets it only on sockets it made itself; without it the body of every answer
        # waits 40 ms for the client's delayed acknowledgement of its headers.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict("port_in_use", f"port {port} on {host} is taken by another process", port=port) from error
        raise Unavailable("cannot_listen", f"cannot listen on {host}:{port}: {error}") from error


def _unix(path: Path) -> socket.socket:
    check_unix_path(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        remove_dead(path)
        listener.bind(str(path))
        path.chmod(UNIX_MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise Unavailable("cannot_listen", f"cannot listen on {path}: {error}") from error
    except FoglineError:
        listener.close()
        raise
    return listener


def check_unix_path(path: Path) -> None:
    """Raise InvalidInput ``socket_path_too_long``."""
    if len(str(path).encode()) > _UNIX_PATH_LIMIT:
        raise InvalidInput("socket_path_too_long", f"a unix socket's path has at most {_UNIX_PATH_LIMIT} bytes: {path}")


def remove_dead(path: Path) -> None:
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
