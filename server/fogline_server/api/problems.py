"""Errors as RFC 9457 problem details. One place turns whatever went wrong into one form, and never leaks internals."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from fogline_shared.errors import ErrorKind, FoglineError

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[ErrorKind, int] = {
    ErrorKind.INVALID: 422,
    ErrorKind.UNAUTHENTICATED: 401,
    ErrorKind.FORBIDDEN: 403,
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.CONFLICT: 409,
    ErrorKind.EXHAUSTED: 429,
    ErrorKind.CORRUPT: 422,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.INTERNAL: 500,
}
# Where a code means something more precise than its kind.
_STATUS_OF_CODE = {"body_too_large": 413, "blob_too_large": 413, "disk_full": 507}
# Errors that the sentence names; all are in `errors`.
_TOLD = 5
_CODE_OF_STATUS = {
    400: "malformed_request",
    404: "route_not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    416: "range_not_satisfiable",
}

_log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One thing wrong with a request. ``location``: where, from the outside in."""

    location: list[str]
    message: str


class Problem(BaseModel):
    """RFC 9457. ``code`` is stable; ``detail`` is for a person; ``facts`` are what a program may want to know."""

    type: str = Field(examples=["urn:fogline:problem:run_not_found"])
    title: str
    status: int
    detail: str
    code: str
    facts: dict[str, Any] = {}
    errors: list[FieldError] = []


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI entries for the problems a route may answer with."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def problem(
    status: int,
    code: str,
    detail: str,
    *,
    facts: Mapping[str, Any] | None = None,
    errors: list[FieldError] | None = None,
) -> JSONResponse:
    """The response for one problem."""
    body = Problem(
        type=f"urn:fogline:problem:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        code=code,
        facts=dict(facts or {}),
        errors=errors or [],
    )
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    return JSONResponse(body.model_dump(mode="json"), status, headers=headers, media_type=MEDIA_TYPE)


def of_fogline_error(error: FoglineError) -> JSONResponse:
    """Translate by code, else by kind. What is INTERNAL is logged and not shown."""
    status = _STATUS_OF_CODE.get(error.code, STATUS[error.kind])
    if error.kind is ErrorKind.INTERNAL:
        _log.error("internal error", exc_info=error)
        return _internal()
    return problem(status, error.code, error.message, facts=error.detail)


def _internal() -> JSONResponse:
    return problem(500, "internal_error", "something went wrong here; the server's log says what")


def _printable(text: str) -> str:
    """Without lone surrogates, which JSON strings may smuggle in and UTF-8 cannot carry out."""
    return text.encode("utf-8", "replace").decode()


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem."""

    @app.exception_handler(FoglineError)
    def _fogline(_request: Request, error: FoglineError) -> JSONResponse:
        return of_fogline_error(error)

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        raw = error.errors()
        if raw and raw[0]["type"] == "json_invalid":
            return problem(400, "malformed_json", f"the body is not JSON: {raw[0]['ctx']['error']}")
        errors = [
            FieldError(location=[_printable(str(part)) for part in e["loc"]], message=_printable(e["msg"])) for e in raw
        ]
        if errors and errors[0].location == ["body"] and "json" not in request.headers.get("content-type", ""):
            errors[0].message = f"send it as application/json. {errors[0].message}"
        told = "; ".join(f"{'.'.join(e.location)}: {e.message}" for e in errors[:_TOLD])
        return problem(422, "invalid_request", told or "invalid", errors=errors)

    @app.exception_handler(HTTPException)
    def _http(_request: Request, error: HTTPException) -> JSONResponse:
        code = _CODE_OF_STATUS.get(error.status_code, f"http_{error.status_code}")
        response = problem(error.status_code, code, str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(ClientDisconnect)
    def _gone(_request: Request, _error: ClientDisconnect) -> JSONResponse:
        # Nobody reads this; without it the log would hold a traceback for each upload that is broken off.
        return problem(400, "malformed_request", "the body ended early")

    _install_database(app)

    @app.exception_handler(Exception)
    def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
        return _internal()


def _install_database(app: FastAPI) -> None:
    @app.exception_handler(IntegrityError)
    def _race(_request: Request, _error: IntegrityError) -> JSONResponse:
        return problem(
            409, "concurrent_change", "somebody else changed the same thing at the same time: look and retry"
        )

    @app.exception_handler(DataError)
    def _unstorable(_request: Request, error: DataError) -> JSONResponse:
        _log.warning("a value that the database cannot hold came this far", exc_info=error)
        return problem(422, "unstorable_value", "a value cannot be stored")

    @app.exception_handler(DBAPIError)
    def _database(_request: Request, error: DBAPIError) -> JSONResponse:
        _log.error("database error", exc_info=error)
        return problem(503, "database_unavailable", "the database does not answer for now: retry")
