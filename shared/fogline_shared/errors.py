"""The error tree. A feature raises; each edge (HTTP, gRPC, CLI, agent report) translates once, by ``kind``.

``code`` is the stable, documented name a program may rely on (``docs/errors.md`` lists them);
``message`` is for a person and may change.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any


class ErrorKind(StrEnum):
    """How an edge answers; finer distinctions are ``code``."""

    INVALID = "INVALID"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    EXHAUSTED = "EXHAUSTED"
    CORRUPT = "CORRUPT"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL = "INTERNAL"


class FoglineError(Exception):
    """Base of every error that reaches a user. ``detail`` holds JSON-able facts (field, limit, got …)."""

    kind: ErrorKind = ErrorKind.INTERNAL

    def __init__(self, code: str, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.detail: Mapping[str, Any] = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class InvalidInput(FoglineError):
    """The caller sent something that can never be right."""

    kind = ErrorKind.INVALID


class Unauthenticated(FoglineError):
    """Nobody we know: a missing, wrong, expired or reused credential."""

    kind = ErrorKind.UNAUTHENTICATED


class Forbidden(FoglineError):
    """Somebody we know, who may not do this."""

    kind = ErrorKind.FORBIDDEN


class NotFound(FoglineError):
    """The named thing does not exist."""

    kind = ErrorKind.NOT_FOUND


class Conflict(FoglineError):
    """Right in itself, but not in the present state: an illegal transition, a taken name, a stale version."""

    kind = ErrorKind.CONFLICT


class Exhausted(FoglineError):
    """A limit was reached: rate, size, disk, quota."""

    kind = ErrorKind.EXHAUSTED


class Corrupt(FoglineError):
    """Bytes are not what their digest, schema or format promises."""

    kind = ErrorKind.CORRUPT


class Unavailable(FoglineError):
    """A part that should be there is not, for now: retry may help."""

    kind = ErrorKind.UNAVAILABLE
