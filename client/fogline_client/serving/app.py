"""The local protocol as a bare ASGI application: routes, limits, status codes. A framework would cost 150 µs a call."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from fogline_client.inference.model import LoadedModel
from fogline_client.inference.predictor import Predictor
from fogline_client.serving import protocol
from fogline_shared import __version__
from fogline_shared.errors import ErrorKind, Exhausted, FoglineError, InvalidInput, NotFound, Unavailable

log = structlog.get_logger()

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

DEFAULT_MAX_BODY = 16 * 1024 * 1024
# Longer work leaves the event loop: the agent's sync stream shares it. A thread hop costs about 60 µs.
_INLINE_BUDGET_US = 2_000.0

_STATUS = {
    ErrorKind.INVALID: 400,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.EXHAUSTED: 413,
    ErrorKind.UNAVAILABLE: 503,
}
_MODEL = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<verb>/ready|/infer)?")
_JSON = {"content-type": "application/json"}


class ClientGone(Exception):
    """The client hung up before its request was complete: there is nobody to answer."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What goes back."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: dict(_JSON))


class InferenceApp:
    """ASGI 3. Every error is JSON ``{"error": text, "code": stable name}``, as the protocol wants it."""

    def __init__(self, predictor: Predictor, *, max_body: int = DEFAULT_MAX_BODY) -> None:
        self._predictor = predictor
        self._max_body = max_body

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        try:
            response = await self._respond(scope, receive)
        except ClientGone:
            return
        except FoglineError as error:
            response = _problem(_STATUS.get(error.kind, 500), error.code, error.message)
        except Exception:  # a bug of ours must not take the connection, or the agent, with it
            log.exception("serving_failed", path=scope["path"])
            response = _problem(500, "internal", "the request failed; see the agent's log")
        headers = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        headers.append((b"content-length", str(len(response.body)).encode()))
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else response.body})

    async def _respond(self, scope: Message, receive: Receive) -> Response:
        path: str = scope["path"].rstrip("/")
        match = _MODEL.fullmatch(path)
        allowed = "POST" if match and match["verb"] == "/infer" else "GET"
        if not match and path not in {"/v2", "/v2/health/live", "/v2/health/ready"}:
            raise NotFound("no_such_route", f"no route {path[:100]!r}")
        if scope["method"] != allowed and not (allowed == "GET" and scope["method"] == "HEAD"):
            refused = _problem(405, "method_not_allowed", f"this route takes {allowed}")
            return Response(status=405, body=refused.body, headers=_JSON | {"allow": allowed})
        if not match:
            return self._server_route(path)
        model = self._model(match["name"], match["version"])
        if match["verb"] == "/infer":
            return await self._infer(model, scope, receive)
        if match["verb"] == "/ready":
            return _json({"name": model.manifest.recipe, "ready": True})
        return _json(protocol.model_metadata(model.manifest, model.digest))

    def _server_route(self, path: str) -> Response:
        if path == "/v2/health/live":
            return _json({"live": True})
        if path == "/v2/health/ready":
            if self._predictor.model is None:
                raise Unavailable("no_model", "no model is active on this device yet")
            return _json({"ready": True})
        return _json({"name": "fogline-agent", "version": __version__, "extensions": ["binary_tensor_data"]})

    def _model(self, name: str, version: str | None) -> LoadedModel:
        model = self._predictor.model
        if model is None:
            raise Unavailable("no_model", "no model is active on this device yet")
        if name != model.manifest.recipe or version not in {None, model.digest}:
            raise NotFound("model_not_found", f"this device serves {model.manifest.recipe!r}, version {model.digest}")
        return model

    async def _infer(self, model: LoadedModel, scope: Message, receive: Receive) -> Response:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get(b"content-encoding", "identity") != "identity":
            return _problem(415, "unsupported_encoding", "send the body uncompressed")
        body = await self._body(headers.get(b"content-length"), receive)
        request = protocol.parse_infer(body, headers.get(b"inference-header-content-length"), model.manifest)
        if len(request.x) * model.warm_us < _INLINE_BUDGET_US:
            answers = self._predictor.predict_many(request.x, truths=request.truths)
        else:
            answers = await asyncio.to_thread(self._predictor.predict_many, request.x, truths=request.truths)
        encoded, response_headers = protocol.encode_infer(request, answers, model.manifest)
        return Response(body=encoded, headers=response_headers)

    async def _body(self, declared: str | None, receive: Receive) -> bytes:
        """The whole body; raises Exhausted ``body_too_large`` before more than the limit is in memory."""
        if declared is not None and declared.isdecimal() and int(declared[:18]) > self._max_body:
            raise Exhausted("body_too_large", f"a body has at most {self._max_body} bytes", limit=self._max_body)
        chunks, size, more = [], 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = message.get("body", b"")
            size += len(chunk)
            if size > self._max_body:
                raise Exhausted("body_too_large", f"a body has at most {self._max_body} bytes", limit=self._max_body)
            chunks.append(chunk)
            more = message.get("more_body", False)
        if not size:
            raise InvalidInput("bad_request", "the body is empty")
        return b"".join(chunks)


def _json(message: dict[str, Any]) -> Response:
    return Response(body=protocol.dumps(message))


def _problem(status: int, code: str, message: str) -> Response:
    return Response(status=status, body=protocol.dumps({"error": message, "code": code}))
