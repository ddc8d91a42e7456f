"""One HTTP request and its answer, and who answers: what connections and routes have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import NamedTuple, Protocol

from fogline_shared.errors import FoglineError

_REASONS = {int(status): status.phrase.encode() for status in HTTPStatus}
_JSON: Mapping[str, str] = {"content-type": "application/json"}


class Head(NamedTuple):
    """A request without its body. ``headers``: those that somebody here reads, names in lower case."""

    method: str
    path: str
    headers: Mapping[bytes, bytes]


class Response(NamedTuple):
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = _JSON


class Application(Protocol):
    """What answers."""

    def check(self, head: Head) -> None:
        """Raise FoglineError for a request that need not be read any further."""

    def answer(self, head: Head, body: bytes, *, age_s: float) -> Response | asyncio.Future[Response]:
        """The response; ``age_s``: how long ago the request may have arrived. It raises nothing."""

    def problem(self, error: FoglineError) -> Response:
        """The response that tells of a refusal."""


def encoded(response: Response, *, close: bool, body: bool) -> bytes:
    """Its bytes; ``close``: say that it is the last one. ``body``: HEAD has none."""
    lines = [b"HTTP/1.1 %d %s\r\n" % (response.status, _REASONS.get(response.status, b""))]
    lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in response.headers.items()]
    lines.append(b"content-length: %d\r\n%s\r\n" % (len(response.body), b"connection: close\r\n" if close else b""))
    if body:
        lines.append(response.body)
    return b"".join(lines)
