"""The gateway's one translation of errors: kind → gRPC status, code → trailing metadata, message → details."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

import grpc
import structlog
from sqlalchemy.exc import DataError, OperationalError

from fogline_shared.errors import ErrorKind, FoglineError, InvalidInput, Unauthenticated, Unavailable

CODE_KEY = "fogline-code"

STATUS: Mapping[ErrorKind, grpc.StatusCode] = MappingProxyType(
    {
        ErrorKind.INVALID: grpc.StatusCode.INVALID_ARGUMENT,
        ErrorKind.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
        ErrorKind.FORBIDDEN: grpc.StatusCode.PERMISSION_DENIED,
        ErrorKind.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
        ErrorKind.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
        ErrorKind.EXHAUSTED: grpc.StatusCode.RESOURCE_EXHAUSTED,
        ErrorKind.CORRUPT: grpc.StatusCode.DATA_LOSS,
        ErrorKind.UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
        ErrorKind.INTERNAL: grpc.StatusCode.INTERNAL,
    }
)

_log = structlog.get_logger()


@asynccontextmanager
async def translated(context: Any, rpc: str) -> AsyncIterator[None]:
    """End the call with the status of whatever is raised inside. What we did not foresee is logged, never shown."""
    try:
        yield
    except grpc.aio.AbortError:
        raise
    except Exception as error:
        known = as_known(error)
        if known.kind == ErrorKind.INTERNAL:
            _log.exception("gateway.call_failed", rpc=rpc)
        await context.abort(STATUS[known.kind], known.message[:500], trailing_metadata=((CODE_KEY, known.code),))


def as_known(error: Exception) -> FoglineError:
    """The error as one of ours: a database that is away is UNAVAILABLE, a value it cannot hold is INVALID."""
    match error:
        case FoglineError():
            return error
        case OperationalError():
            return Unavailable("database_unavailable", "the coordinator's database does not answer; try again")
        case DataError():
            return InvalidInput("unstorable_value", "a value cannot be stored")
        case TimeoutError():
            return Unavailable("device_silent", "the device sent nothing for too long")
        case grpc.aio.InternalError():  # what a write to a call raises whose other end has died
            return Unavailable("device_gone", "the device went away during the call")
        case _:
            return FoglineError("internal_error", "the coordinator failed; its log says more")


def device_id_of(context: Any) -> str:
    """The common name of the certificate the peer presented."""
    names = context.auth_context().get("x509_common_name", [])
    if len(names) != 1:
        raise Unauthenticated("device_unknown", "the client certificate names no device")
    return str(names[0].decode())
