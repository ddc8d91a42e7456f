"""The admin REST API from outside: what the command line and the demo speak to a coordinator with, and nothing else."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

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

Json = dict[str, Any]

_OF_STATUS: Mapping[int, type[FoglineError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    429: Exhausted,
    503: Unavailable,
    507: Exhausted,
}


class Rest:
    """Requests that answer with JSON or raise: the coordinator's problem under its code, or what kept us from asking.

    Raises InvalidInput ``invalid_url``, ``invalid_name`` or ``invalid_argument``, Unauthenticated ``invalid_api_key``,
    Unavailable ``coordinator_unreachable``, FoglineError ``not_a_coordinator``.
    """

    def __init__(self, url: str, api_key: str) -> None:
        if not (api_key.isascii() and api_key.isprintable()):
            raise Unauthenticated("invalid_api_key", "an API key looks like fl_<hexadecimal id>_<secret>")
        try:
            self._http = httpx.Client(
                base_url=url,
                headers={"Authorization": f"Bearer {api_key}"},
                timeout=httpx.Timeout(60.0, connect=5.0),
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise InvalidInput("invalid_url", f"{url!r}: {error}") from error

    def get(self, path: str, **query: Any) -> Json:
        """GET with the query's None left out."""
        return self._json(self._send("GET", path, params=_given(query)))

    def post(self, path: str, body: Mapping[str, Any] | None = None, **query: Any) -> Json:
        """POST that acts once, however often the network makes us repeat it."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._json(self._send("POST", path, params=_given(query), json=body, headers=headers))

    def put(self, path: str, body: Mapping[str, Any]) -> Json:
        """PUT."""
        return self._json(self._send("PUT", path, json=body))

    def patch(self, path: str, body: Mapping[str, Any]) -> Json:
        """PATCH."""
        return self._json(self._send("PATCH", path, json=body))

    def delete(self, path: str) -> None:
        """DELETE."""
        self._send("DELETE", path)

    def upload(self, path: str, content: bytes | Iterable[bytes], **query: Any) -> Json:
        """POST of bytes."""
        headers = {"Content-Type": "application/octet-stream"}
        return self._json(self._send("POST", path, params=_given(query), content=content, headers=headers))

    def download(self, path: str, file: Path, *, digest: str | None = None) -> int:
        """GET bytes into a file, whole or not at all; their number.

        Raises FoglineError ``cannot_write`` too, and Corrupt ``digest_mismatch`` unless their SHA-256 is ``digest``, if given.
        """
        sha = hashlib.sha256()
        draft = file.with_name(f".{file.name}.part")
        try:
            with self._http.stream("GET", _checked(path)) as response, draft.open("wb") as out:
                if response.is_error:
                    response.read()
                    raise _problem(response)
                size = 0
                for piece in response.iter_bytes():
                    sha.update(piece)
                    size += out.write(piece)
            if digest is not None and sha.hexdigest() != digest:
                raise Corrupt("digest_mismatch", f"what came is {sha.hexdigest()}, not {digest}")
            draft.replace(file)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except OSError as error:
            raise FoglineError("cannot_write", f"{file}: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
        return size

    def items(self, path: str, *, limit: int, **query: Any) -> list[Json]:
        """Up to ``limit`` items of a list, over as many pages as it takes."""
        found: list[Json] = []
        cursor: str | None = None
        while len(found) < limit:
            page = self.get(path, limit=min(200, limit - len(found)), cursor=cursor, **query)
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return found

    def events(self) -> Iterator[Json]:
        """Events from now on, for ever."""
        headers = {"Accept": "text/event-stream"}
        try:
            with self._http.stream("GET", "/v1/events", headers=headers, timeout=httpx.Timeout(60.0)) as response:
                if response.is_error:
                    response.read()
                    raise _problem(response)
                for line in response.iter_lines():
                    if line.startswith("data: "):
                        yield json.loads(line.removeprefix("data: "))
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error

    def _send(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            response = self._http.request(method, _checked(path), **kwargs)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unreachable(error) from error
        except ValueError as error:  # text that is not UTF-8, numbers that are not JSON
            raise InvalidInput("invalid_argument", f"this cannot be sent: {error}") from error
        if response.is_error:
            raise _problem(response)
        return response

    def _json(self, response: httpx.Response) -> Json:
        try:
            body: Json = response.json()
        except ValueError as error:
            raise FoglineError("not_a_coordinator", f"{self._http.base_url} does not speak JSON") from error
        return body

    def _unreachable(self, error: Exception) -> Unavailable:
        message = f"no answer from {self._http.base_url}: {error or type(error)}"
        return Unavailable("coordinator_unreachable", message)


def _checked(path: str) -> str:
    """The path of a request; an id with a slash or a question mark in it would ask for something else."""
    if re.fullmatch(r"(/[A-Za-z0-9][A-Za-z0-9_.:-]*)+", path) is None:
        raise InvalidInput("invalid_name", f"{path.removeprefix('/v1/')!r} does not name one thing")
    return path


def _problem(response: httpx.Response) -> FoglineError:
    """The problem that was answered, as the error it was before it was told over HTTP."""
    status = response.status_code
    kind = _OF_STATUS.get(status, InvalidInput if 400 <= status < 500 else FoglineError)
    try:
        body = response.json()
        return kind(str(body["code"]), str(body["detail"]))
    except (ValueError, KeyError, TypeError):
        return kind(f"http_{status}", response.text[:200])


def _given(query: Mapping[str, Any]) -> Json:
    return {name: value for name, value in query.items() if value is not None}
