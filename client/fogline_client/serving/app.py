"""The local protocol's HTTP routes: which request means what, and which status a refusal has."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from fogline_client.energy import Meter, exposition
from fogline_client.inference.model import LoadedModel
from fogline_client.inference.predictor import Predictor
from fogline_client.serving import protocol, tensors
from fogline_client.serving.exchange import Head, Response
from fogline_client.serving.scheduler import Answers, Scheduler
from fogline_client.serving.tensors import InferRequest
from fogline_shared.errors import ErrorKind, FoglineError, InvalidInput, NotFound, Unavailable

log = structlog.get_logger()

_STATUS: Mapping[ErrorKind, int] = {
    ErrorKind.INVALID: 400,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.EXHAUSTED: 429,
    ErrorKind.UNAVAILABLE: 503,
}
_STATUS_OF_CODE = {
    "body_too_large": 413,
    "unsupported_encoding": 415,
    "method_not_allowed": 405,
    "request_timeout": 408,
}
_MODEL = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<verb>/ready|/infer)?")
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
_PLAIN = {"/v2", "/v2/health/live", "/v2/health/ready", "/metrics"}


# A body that is longer is not even read when the queue is full; a shorter one costs less than a new connection.
_LONG_BODY = 64 * 1024


class InferenceApp:
    """Every error is JSON ``{"error": text, "code": stable name}``, as the protocol wants it.

    ``connections`` tells how many there are, for ``/metrics``; ``more_metrics`` what else is to be read there.
    """

    def __init__(self, predictor: Predictor, scheduler: Scheduler) -> None:
        self._predictor = predictor
        self._scheduler = scheduler
        self._meter = Meter()
        self.connections: Callable[[], int] = lambda: 0
        self.more_metrics: Callable[[], str] = str

    def check(self, head: Head) -> None:
        """Raise Exhausted ``queue_full`` before a long body is read for nothing."""
        if int(head.headers.get(b"content-length", b"0")) > _LONG_BODY:
            self._scheduler.check_room()

    def answer(self, head: Head, body: bytes, *, age_s: float) -> Response | asyncio.Future[Response]:
        """The response to one request; see :class:`~fogline_client.serving.exchange.Application`."""
        try:
            return self._respond(head, body, age_s)
        except Exception as error:
            return self._failed(head, error)

    def problem(self, error: FoglineError) -> Response:
        """The response that tells of a refusal, and counts it."""
        self._scheduler.counts.refused[error.code] += 1
        headers = {"content-type": "application/json"}
        if (wait := error.detail.get("retry_after_s")) is not None:
            headers["retry-after"] = str(max(1, math.ceil(wait)))
        if (allowed := error.detail.get("allow")) is not None:
            headers["allow"] = allowed
        status = _STATUS_OF_CODE.get(error.code) or _STATUS.get(error.kind, 500)
        body = protocol.dumps({"error": error.message, "code": error.code})
        return Response(status=status, body=body, headers=headers)

    def _failed(self, head: Head, error: Exception) -> Response:
        if isinstance(error, FoglineError):
            return self.problem(error)
        # A bug of ours must not take the connection, or the agent, with it.
        log.error("serving_failed", path=head.path, exc_info=error)
        return self.problem(FoglineError("internal", "the request failed; see the agent's log"))

    def _respond(self, head: Head, body: bytes, age_s: float) -> Response | asyncio.Future[Response]:
        path = head.path.rstrip("/")
        match = _MODEL.fullmatch(path)
        if not match and path not in _PLAIN:
            raise NotFound("no_such_route", f"no route {path[:100]!r}")
        allowed = "POST" if match and match["verb"] == "/infer" else "GET"
        if head.method != allowed and not (allowed == "GET" and head.method == "HEAD"):
            raise InvalidInput("method_not_allowed", f"this route takes {allowed}", allow=allowed)
        if not match:
            return self._plain_route(path)
        if match["verb"] == "/infer":
            self._scheduler.check_room()
        model = tensors.served_model(self._predictor, match["name"], match["version"])
        if match["verb"] == "/infer":
            return self._infer(model, head, body, age_s)
        if match["verb"] == "/ready":
            return _json({"name": model.manifest.recipe, "ready": True})
        return _json(protocol.model_metadata(model.manifest, model.digest))

    def _plain_route(self, path: str) -> Response:
        if path == "/metrics":
            text = self._scheduler.counts.text(waiting=self._scheduler.waiting, connections=self.connections())
            return Response(
                body=(text + exposition(self._meter) + self.more_metrics()).encode(), headers={"content-type": _METRICS}
            )
        if path == "/v2/health/live":
            return _json({"live": True})
        if path == "/v2/health/ready":
            if self._predictor.model is None:
                raise Unavailable("no_model", "no model is active on this device yet")
            return _json({"ready": True})
        return _json({"name": tensors.SERVER, "version": tensors.VERSION, "extensions": list(tensors.EXTENSIONS)})

    def _infer(self, model: LoadedModel, head: Head, body: bytes, age_s: float) -> Response | asyncio.Future[Response]:
        if head.headers.get(b"content-encoding", b"identity") != b"identity":
            raise InvalidInput("unsupported_encoding", "send the body uncompressed")
        if not body:
            raise InvalidInput("bad_request", "the body is empty")
        length = head.headers.get(b"inference-header-content-length")
        request = protocol.parse_infer(body, None if length is None else length.decode("latin-1"), model.manifest)
        answers = self._scheduler.submit(model, request, age_s=age_s)
        if isinstance(answers, asyncio.Future):
            return asyncio.ensure_future(self._later(model, head, request, answers))
        return self._answered(model, request, answers)

    async def _later(
        self, model: LoadedModel, head: Head, request: InferRequest, answers: asyncio.Future[Answers]
    ) -> Response:
        try:
            return self._answered(model, request, await answers)
        except Exception as error:
            return self._failed(head, error)

    def _answered(self, model: LoadedModel, request: InferRequest, answers: Answers) -> Response:
        encoded, headers = protocol.encode_infer(request, answers, model.manifest)
        self._scheduler.counts.answered += 1
        return Response(body=encoded, headers=headers)


def _json(message: dict[str, Any]) -> Response:
    return Response(body=protocol.dumps(message))
