"""Bodies have a size limit, kept while they arrive."""

from __future__ import annotations

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 1 << 20
MAX_ARTIFACT_BYTES = 512 << 20


class BodyLimit:
    """ASGI middleware. ``larger`` maps a path to the limit it has instead."""

    def __init__(self, app: ASGIApp, *, larger: dict[str, int]) -> None:
        self._app = app
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on; reading past the limit raises a 413 inside the application, where it becomes a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._larger.get(scope["path"], MAX_BODY_BYTES)
        read = 0
        length = dict(scope["headers"]).get(b"content-length", b"")
        announced = int(length) if length.isdigit() and len(length) < 20 else 0

        async def limited() -> Message:
            nonlocal read
            # What announces too much is not read at all.
            message = await receive() if announced <= limit else {"type": "http.request"}
            read += len(message.get("body", b""))
            if max(read, announced) > limit:
                raise HTTPException(413, f"a body here has at most {limit} bytes")
            return message

        await self._app(scope, limited, send)
