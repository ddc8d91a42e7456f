"""gRPC channels to the coordinator, and its answers as our errors: translated here, once, for the whole agent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import grpc

from fogline_client.identity import Identity
from fogline_shared.errors import (
    Conflict,
    Corrupt,
    Exhausted,
    FoglineError,
    Forbidden,
    InvalidInput,
    NotFound,
    Unauthenticated,
    Unavailable,
)

_OPTIONS = (
    # A dead peer is noticed within 40 s even when nothing is sent.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Our own pace decides when to come back; gRPC's must not add to it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_receive_message_length", 8 << 20),
)

_ERRORS: Mapping[grpc.StatusCode, type[FoglineError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.OUT_OF_RANGE: InvalidInput,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: Forbidden,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.FAILED_PRECONDITION: Conflict,
    grpc.StatusCode.ABORTED: Conflict,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Exhausted,
    grpc.StatusCode.DATA_LOSS: Corrupt,
}


def mutual_tls(identity: Identity) -> grpc.aio.Channel:
    """A channel to the gateway, as this device. A new certificate needs a new channel."""
    credentials = grpc.ssl_channel_credentials(
        identity.ca_pem.encode(), identity.key_pem.encode(), identity.certificate_pem.encode()
    )
    return grpc.aio.secure_channel(identity.gateway_target, credentials, options=_OPTIONS)


def server_tls(target: str, ca_pem: bytes) -> grpc.aio.Channel:
    """A channel to the enrolment port, as nobody yet."""
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(ca_pem), options=_OPTIONS)


@contextmanager
def translated() -> Iterator[None]:
    """Raise what the coordinator meant instead of gRPC's errors.

    A closed channel cancels its calls, which gRPC shows as a CancelledError of the caller; taken for a cancellation of the
    task, it would silently end whoever waits. It is an Unavailable ``connection_closed``.
    """
    try:
        yield
    except grpc.aio.AioRpcError as failure:
        raise error_of(failure) from failure
    except asyncio.CancelledError as closed:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise Unavailable("connection_closed", "the connection was closed during the call") from closed


def error_of(failure: grpc.aio.AioRpcError) -> FoglineError:
    """What the coordinator meant: its code from the trailing metadata ``fogline-code``, else one of our own."""
    status: grpc.StatusCode = failure.code()
    named = {str(key): value for key, value in failure.trailing_metadata() or ()}.get("fogline-code", "")
    code = named.decode() if isinstance(named, bytes) else str(named)
    message = failure.details() or status.name
    return _ERRORS.get(status, Unavailable)(code or f"gateway_{status.name.lower()}", message)
