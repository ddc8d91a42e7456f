"""The local protocol over gRPC: ``inference.GRPCInferenceService``. Loaded only by an agent that serves it.

Every refusal has its stable code in the trailing metadata ``fogline-code``, as the coordinator's gateway has it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import structlog

from fogline_client.inference.predictor import Predictor
from fogline_client.serving import messages, sockets, tensors
from fogline_client.serving.options import ServingOptions
from fogline_client.serving.scheduler import Scheduler
from fogline_shared.errors import Conflict, ErrorKind, FoglineError, NotFound, Unavailable
from fogline_shared.proto import open_inference_pb2 as pb

log = structlog.get_logger()

SERVICE = "inference.GRPCInferenceService"

_STATUS: Mapping[ErrorKind, grpc.StatusCode] = {
    ErrorKind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    ErrorKind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    ErrorKind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorKind.CORRUPT: grpc.StatusCode.DATA_LOSS,
    ErrorKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
}
# Calls at the same time beyond those that wait or are being answered: gRPC refuses more before it reads their messages.
_SPARE_CALLS = 16


class InferenceService:
    """The protocol's calls. Each takes the request's bytes, so that what is no message is refused with a code of ours."""

    def __init__(self, predictor: Predictor, scheduler: Scheduler) -> None:
        self._predictor = predictor
        self._scheduler = scheduler

    def handlers(self) -> grpc.GenericRpcHandler:
        """What a server registers."""
        calls: Mapping[str, Callable[[bytes, Any], Awaitable[Any]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelInfer": self._infer,
        }
        return grpc.method_handlers_generic_handler(
            SERVICE, {name: grpc.unary_unary_rpc_method_handler(self._guarded(call)) for name, call in calls.items()}
        )

    def _guarded(self, call: Callable[[bytes, Any], Awaitable[Any]]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        async def guarded(request: bytes, context: Any) -> bytes:
            try:
                return bytes((await call(request, context)).SerializeToString())
            except FoglineError as error:
                self._scheduler.counts.refused[error.code] += 1
                await _abort(context, error)
            except Exception:  # a bug of ours: the caller hears that much
                log.exception("serving_failed")
                self._scheduler.counts.refused["internal"] += 1
                await context.abort(grpc.StatusCode.INTERNAL, "the request failed; see the agent's log")
            raise AssertionError("abort raises")

        return guarded

    async def _server_live(self, request: bytes, _: Any) -> pb.ServerLiveResponse:
        messages.parse(request, pb.ServerLiveRequest())
        return pb.ServerLiveResponse(live=True)

    async def _server_ready(self, request: bytes, _: Any) -> pb.ServerReadyResponse:
        messages.parse(request, pb.ServerReadyRequest())
        return pb.ServerReadyResponse(ready=self._predictor.model is not None)

    async def _model_ready(self, content: bytes, _: Any) -> pb.ModelReadyResponse:
        request = messages.parse(content, pb.ModelReadyRequest())
        with contextlib.suppress(Unavailable, NotFound):
            tensors.served_model(self._predictor, request.name, request.version)
            return pb.ModelReadyResponse(ready=True)
        return pb.ModelReadyResponse(ready=False)

    async def _server_metadata(self, request: bytes, _: Any) -> pb.ServerMetadataResponse:
        messages.parse(request, pb.ServerMetadataRequest())
        return pb.ServerMetadataResponse(name=tensors.SERVER, version=tensors.VERSION, extensions=tensors.EXTENSIONS)

    async def _model_metadata(self, content: bytes, _: Any) -> pb.ModelMetadataResponse:
        request = messages.parse(content, pb.ModelMetadataRequest())
        model = tensors.served_model(self._predictor, request.name, request.version)
        return messages.model_metadata(model.manifest, model.digest)

    async def _infer(self, content: bytes, context: Any) -> pb.ModelInferResponse:
        self._scheduler.check_room()
        message = messages.parse(content, pb.ModelInferRequest())
        model = tensors.served_model(self._predictor, message.model_name, message.model_version)
        request = messages.read_infer(message, model.manifest)
        # gRPC's own deadline counts from when the call arrived, wherever it waited until now.
        left = context.time_remaining()
        if left is not None:
            request = request._replace(timeout_s=max(1e-9, min(left, request.timeout_s or left)))
        answers = self._scheduler.submit(model, request)
        if isinstance(answers, asyncio.Future):
            answers = await answers
        self._scheduler.counts.answered += 1
        return messages.infer_response(request, answers, model.manifest)


class GrpcEndpoint:
    """Bound when it is made, inside a running loop; serves from :meth:`start` on.

    Raises Conflict ``port_in_use``, InvalidInput ``socket_path_too_long``, Unavailable ``cannot_listen``.
    """

    def __init__(self, host: str, options: ServingOptions) -> None:
        self._server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 0),  # else a second agent would quietly share the port
                ("grpc.max_receive_message_length", options.max_body),
                # gRPC bounds no number of connections: those that say nothing do not stay.
                ("grpc.server_handshake_timeout_ms", round(1000 * options.read_timeout_s)),
                ("grpc.max_connection_idle_ms", round(1000 * options.idle_timeout_s)),
                # A peer that has gone without a word is noticed.
                ("grpc.keepalive_time_ms", 60_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ),
            maximum_concurrent_rpcs=options.queue + options.threads + _SPARE_CALLS,
        )
        # What a client connects to.
        self.targets: list[str] = []
        self._socket = Path(options.grpc_socket).absolute() if options.grpc_socket else None
        if options.grpc_port >= 0:
            self._bind_port(f"[{host}]" if ":" in host else host, options.grpc_port)
        if self._socket is not None:
            self._bind_socket(self._socket)

    async def start(self, predictor: Predictor, scheduler: Scheduler) -> None:
        """Serve."""
        self._server.add_generic_rpc_handlers((InferenceService(predictor, scheduler).handlers(),))
        await self._server.start()

    async def stop(self, grace_s: float) -> None:
        """Let calls that are being answered end, within ``grace_s``."""
        await self._server.stop(grace_s)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    def _bind_port(self, host: str, port: int) -> None:
        try:
            self.targets.append(f"{host}:{self._server.add_insecure_port(f'{host}:{port}')}")
        except RuntimeError as error:  # it does not say why; a port that is taken is the usual reason
            raise Conflict("port_in_use", f"cannot serve gRPC on {host}:{port}: {error}", port=port) from error

    def _bind_socket(self, path: Path) -> None:
        sockets.check_unix_path(path)
        sockets.remove_dead(path)
        try:
            self._server.add_insecure_port(f"unix:{path}")
            path.chmod(sockets.UNIX_MODE)
            self.targets.append(f"unix:{path}")
        except (RuntimeError, OSError) as error:
            raise Unavailable("cannot_listen", f"cannot serve gRPC on {path}: {error}") from error


async def _abort(context: Any, error: FoglineError) -> None:
    status = _STATUS.get(error.kind, grpc.StatusCode.INTERNAL)
    if error.code == "deadline_unmeetable":
        status = grpc.StatusCode.DEADLINE_EXCEEDED
    trailing = [("fogline-code", error.code)]
    if (wait := error.detail.get("retry_after_s")) is not None:
        # gRPC's own word for "not before": clients that retry by a policy obey it.
        trailing.append(("grpc-retry-pushback-ms", str(max(1, round(1000 * wait)))))
    await context.abort(status, error.message, tuple(trailing))
