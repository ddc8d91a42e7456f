"""``Idempotency-Key`` on POST: the same key and request get the same answer and act once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Header, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from fogline_server.access import idempotency
from fogline_server.access.idempotency import StoredAnswer
from fogline_server.api.auth import identify
from fogline_server.api.services import services_of
from fogline_server.db.base import utc_now

HEADER = "Idempotency-Key"
_FORM = r"^[A-Za-z0-9_.:-]{1,100}$"


def _declare(
    _key: Annotated[
        str | None, Header(alias=HEADER, pattern=_FORM, description="repeat a request with the same key: it acts once")
    ] = None,
) -> None:
    """Puts the header into the OpenAPI document and refuses malformed ones."""


IDEMPOTENT = Depends(_declare)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class IdempotentRoute(APIRoute):
    """A route whose POST honours the header. Not for answers that hold a secret: those are never stored."""

    def get_route_handler(self) -> Handler:
        """Wrap the handler; without the header it is called as it is."""
        handle = super().get_route_handler()

        async def repeatable(request: Request) -> Response:
            key = request.headers.get(HEADER, "")
            if request.method != "POST" or not re.fullmatch(_FORM, key):
                return await handle(request)
            return await _once(request, key, handle)

        return repeatable


async def _once(request: Request, key: str, handle: Handler) -> Response:
    db = services_of(request).db
    who = await asyncio.to_thread(identify, request)
    scoped = f"{who.key_id}:{key}"
    stored = await asyncio.to_thread(idempotency.reserve, db, scoped, await _fingerprint(request), now=utc_now())
    if stored is not None:
        return JSONResponse(stored.body, stored.status, headers={"Idempotency-Replayed": "true"})
    try:
        response = await handle(request)
        answer = StoredAnswer(status=response.status_code, body=json.loads(bytes(response.body)))
        await asyncio.to_thread(idempotency.store, db, scoped, answer)
    except BaseException:
        await asyncio.to_thread(idempotency.release, db, scoped)
        raise
    return response


async def _fingerprint(request: Request) -> str:
    body = await request.body()
    parts = (request.url.path.encode(), request.url.query.encode(), body)
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
