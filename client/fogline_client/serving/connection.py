"""One peer's HTTP/1.1: bytes to requests and back, with a bound on everything it can make us hold.

llhttp (``httptools``) does the parsing.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import unquote

import httptools

from fogline_client.serving.exchange import Head, Response, encoded
from fogline_shared.errors import Exhausted, FoglineError, InvalidInput, Unavailable

if TYPE_CHECKING:
    from fogline_client.serving.http import HttpServer

# Request line and headers together.
_MAX_HEAD = 32 * 1024
# Of the largest request, all that are being read.
_LARGEST_READING = 4
# How long, and for how much of the largest body, a refused peer is listened to: it may not read before it has written.
_LINGER_S = 2.0
# A loop that reads so late has too much to do.
_LATE_S = 0.005
# Statuses of refusals that ask a peer to come back later.
_COME_BACK = {429, 503}
# Headers that say how a body comes; and what else somebody here reads.
_FRAMING = (b"content-length", b"transfer-encoding")
_KEPT = {*_FRAMING, b"content-encoding", b"inference-header-content-length", b"expect"}


class _Asked(NamedTuple):
    head: Head
    body: bytes
    keep_alive: bool
    # When it can have arrived, by the monotonic clock; and whether it could have been read then.
    earliest: float
    unheard: bool


class HttpConnection(asyncio.Protocol):
    """One peer. Requests are answered in their order, one at a time; no more than one is read ahead."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._parser = httptools.HttpRequestParser(self)
        self._answering: asyncio.Future[Response] | None = None
        # Requests that came before their turn: no more than what was read in one go.
        self._next: deque[_Asked] = deque()
        self._lingering = self._last = self._stuck = False
        self._unread = 0
        # Since when it has not been heard; a request that is there when it is heard again may have waited as long.
        self._unheard_since: float | None = None
        self._resting = False
        # What was spent on a request that is not whole yet, and since when its latest part is looked at.
        self._spent_s = self._read_at = 0.0
        # When patience ends; set whenever it is the peer's turn.
        self._deadline = 0.0
        self._start()

    # What is being read

    def _start(self) -> None:
        self._url, self._headers = b"", dict[bytes, bytes]()
        self._head: Head | None = None
        self._head_bytes = self._held = 0
        self._body: list[bytes] = []
        self._begun = False

    def on_message_begin(self) -> None:
        self._begun = True

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if (name := name.lower()) in _KEPT:
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        path = unquote(self._url.split(b"?", 1)[0].decode("latin-1"))
        self._head = Head(method=self._parser.get_method().decode(), path=path, headers=self._headers)
        try:
            self._check_length(self._headers.get(b"content-length"))
            self._server.application.check(self._head)
        except FoglineError as error:
            self._refuse(error)
            return
        if self._headers.get(b"expect", b"").lower() == b"100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, chunk: bytes) -> None:
        if self._lingering:
            return
        self._held += len(chunk)
        self._server.reading_bytes += len(chunk)
        try:
            self._check_held()
        except FoglineError as error:
            self._refuse(error)
            return
        self._body.append(chunk)

    def on_message_complete(self) -> None:
        if self._lingering or (self._parser.should_upgrade() and self._has_body()):
            return
        assert self._head is not None
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._release()
        earliest, unheard = self._server.arrivals.earliest(), self._unheard_since
        keep_alive = self._parser.should_keep_alive()
        self._next.append(
            _Asked(self._head, body, keep_alive, earliest if unheard is None else unheard, unheard is not None)
        )
        self._start()

    def _check_length(self, declared: bytes | None) -> None:
        limit = self._server.options.max_body
        if declared is not None and int(declared[:18]) > limit:
            raise Exhausted("body_too_large", f"a body has at most {limit} bytes", limit=limit)

    def _check_held(self) -> None:
        limit = self._server.options.max_body
        if self._held > limit:
            raise Exhausted("body_too_large", f"a body has at most {limit} bytes", limit=limit)
        if self._server.reading_bytes > _LARGEST_READING * limit and self._held < self._server.reading_bytes:
            raise Exhausted("queue_full", "other requests fill the memory for bodies: ask again later", retry_after_s=1)

    def _release(self) -> None:
        self._server.reading_bytes -= self._held
        self._held = 0

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._deadline = time.monotonic() + self._server.options.read_timeout_s
        if not self._server.opened(self):
            error = Unavailable("too_many_connections", "too many connections are at work", retry_after_s=1)
            self._transport.write(encoded(self._server.application.problem(error), close=True, body=True))
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._unread -= len(data)
            if self._unread < 0:
                self.abort()
            return
        if self.silent:
            self._deadline = time.monotonic() + self._server.options.read_timeout_s
        self._head_bytes += len(data) if self._head is None else 0
        self._read_at = time.monotonic()
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            self._refuse(InvalidInput("bad_request", f"this is not HTTP/1.1: {error}"))
        if self._head is None and self._head_bytes > _MAX_HEAD:
            self._refuse(InvalidInput("bad_request", f"the request's head has more than {_MAX_HEAD} bytes"))
        self._proceed()
        self._spent_s = self._spent_s + time.monotonic() - self._read_at if self._begun else 0.0

    def _has_body(self) -> bool:
        return any(name in self._headers for name in _FRAMING)

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                data = self._declined() + data[offer.args[0] :]

    def _declined(self) -> bytes:
        """The request without its offer of another protocol, if its body is yet to come; Java's client always offers HTTP/2.

        llhttp takes what follows the head for the other protocol, and has to begin anew.
        """
        self._parser = httptools.HttpRequestParser(self)
        if self._head is None:
            return b""
        lines = [b"%s: %s\r\n" % each for each in self._headers.items() if each[0] != b"expect"]
        begun = b"%s %s HTTP/1.1\r\n%s\r\n" % (self._head.method.encode(), self._url, b"".join(lines))
        self._start()
        return begun

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        del self._parser  # which holds us as well
        self._release()
        self._next.clear()
        self._server.closed(self)
        if self._answering is not None:
            self._answering.cancel()

    def pause_writing(self) -> None:
        self._stuck = True

    def resume_writing(self) -> None:
        self._stuck = False
        self._deadline = time.monotonic() + self._server.options.idle_timeout_s
        self._proceed()

    # The peer's turn and ours

    @property
    def silent(self) -> bool:
        """Whether it has nothing to say, and we nothing to answer."""
        return not (self._begun or self._next or self._answering or self._lingering or self._stuck)

    def expire(self, now: float) -> None:
        """Give up a peer that has let its time pass."""
        if self._answering is not None or now < self._deadline:
            return
        if self.silent or self._lingering or self._stuck:
            self.abort()
        else:
            self._refuse(Unavailable("request_timeout", "the request did not arrive in time"))

    def finish(self) -> None:
        """Close after what is being answered."""
        self._last = True
        self._next.clear()
        if self._answering is None:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        self._transport.abort()

    def _proceed(self) -> None:
        """Answer what has arrived, as long as answers are there at once."""
        while self._next and not (self._answering or self._stuck or self._transport.is_closing()):
            asked = self._next.popleft()
            self._last = self._last or not asked.keep_alive
            age_s = time.monotonic() - asked.earliest
            answer = self._server.application.answer(asked.head, asked.body, age_s=age_s)
            if isinstance(answer, Response):
                self._write(asked.head, answer)
                if answer.status in _COME_BACK:
                    self._refused(asked, age_s)
                continue
            self._answering = answer
            answer.add_done_callback(partial(self._answered, asked.head))
        # Who has asked again already is heard later. Until then we listen, to hear a peer that hangs up.
        if self._next or self._stuck or self._resting:
            self._transport.pause_reading()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def _refused(self, asked: _Asked, age_s: float) -> None:
        """Not to hear it for a while, if refusals keep a late loop; but what it said meanwhile is no new offence."""
        now = time.monotonic()
        rest_s = self._server.refusals.rest_s(self._spent_s + now - self._read_at, now)
        self._spent_s, self._read_at = 0.0, now
        if rest_s and age_s > _LATE_S and not asked.unheard and not self._resting:
            self._resting, self._unheard_since = True, now
            self._server.loop.call_later(rest_s, self._rested)

    def _rested(self) -> None:
        self._resting = False
        self._proceed()
        # What lies there is read in the loop's next turn.
        loop = self._server.loop
        loop.call_soon(loop.call_soon, self._heard)

    def _heard(self) -> None:
        if not self._resting:
            self._unheard_since = None

    def _answered(self, head: Head, done: asyncio.Future[Response]) -> None:
        self._answering = None
        if done.cancelled() or self._transport.is_closing():
            return
        self._write(head, done.result())
        self._proceed()

    def _write(self, head: Head, response: Response) -> None:
        self._transport.write(encoded(response, close=self._last, body=head.method != "HEAD"))
        if self._last:
            self._transport.close()
            return
        options = self._server.options
        patience = options.read_timeout_s if self._begun or self._stuck else options.idle_timeout_s
        self._deadline = time.monotonic() + patience
        self._server.spoke(self)

    def _refuse(self, error: FoglineError) -> None:
        """Answer in the midst of a request, and hear no more of it: its peer may have a gigabyte yet to send."""
        if self._lingering or self._transport.is_closing():
            return
        self._release()
        self._body.clear()
        self._next.clear()
        self._lingering = True
        self._unread = _LARGEST_READING * self._server.options.max_body
        self._deadline = time.monotonic() + _LINGER_S
        self._transport.write(encoded(self._server.application.problem(error), close=True, body=True))
        if self._transport.can_write_eof():
            self._transport.write_eof()
