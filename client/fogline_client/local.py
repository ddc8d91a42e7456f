"""Ask the agent's local endpoint from another process of this device, without an HTTP library."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from fogline_shared.errors import Unavailable

_MOST_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the agent serves, as its ``status.json`` tells: a URL, else a unix socket's path."""

    url: str
    socket: str


def get(endpoint: Endpoint, path: str, *, timeout_s: float = 3.0) -> str:
    """The body of the answer; raises Unavailable ``not_serving``."""
    url = urlsplit(endpoint.url)
    family, address = (socket.AF_INET, (url.hostname, url.port)) if url.port else (socket.AF_UNIX, endpoint.socket)
    if ":" in (url.hostname or ""):
        family = socket.AF_INET6
    answer = b""
    try:
        with socket.socket(family) as connection:
            connection.settimeout(timeout_s)
            connection.connect(address)
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n".encode())
            while len(answer) < _MOST_BYTES and (piece := connection.recv(65536)):
                answer += piece
    except OSError as error:
        raise Unavailable("not_serving", f"the local endpoint does not answer: {error}") from error
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n", 1)[0]:
        raise Unavailable("not_serving", f"the local endpoint answers {head[:64].decode(errors='replace')!r}")
    return body.decode(errors="replace")
