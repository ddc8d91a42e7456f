"""The CLI's connection: the admin REST API over HTTP, nothing else."""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from fogline_server.cli.exits import Exit, of_status

Json = dict[str, Any]


class CliError(Exception):
    """One line for a person, an exit code for a program."""

    def __init__(self, exit_code: Exit, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.exit_code = exit_code
        self.code = code
        self.message = message


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the coordinator is, and the key to it. ``here``: it is this folder's `fogline up` and sees our files."""

    url: str
    api_key: str
    here: bool = False


def find_target(url: str | None, api_key: str | None, environment: Mapping[str, str] = os.environ) -> Target:
    """What was given, else what a ``fogline up`` in this folder (or FOGLINE_STATE_DIR) has written down.

    Raises CliError ``no_coordinator`` or ``no_api_key``.
    """
    up = _read_up(Path(environment.get("FOGLINE_STATE_DIR") or ".fogline"))
    here = not url
    url = url or up.get("url")
    if not url:
        raise CliError(Exit.UNAVAILABLE, "no_coordinator", "give --url or FOGLINE_URL, or start `fogline up` here")
    api_key = api_key or _read_key(up)
    if not api_key:
        raise CliError(Exit.DENIED, "no_api_key", "give --api-key or FOGLINE_API_KEY")
    return Target(url=url.rstrip("/"), api_key=api_key, here=here)


def _read_up(state_dir: Path) -> Mapping[str, str]:
    try:
        found = json.loads((state_dir / "up.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_key(up: Mapping[str, str]) -> str | None:
    try:
        return Path(up["api_key_file"]).read_text().strip()
    except (OSError, KeyError, TypeError, ValueError):
        return None


class Api:
    """Requests that answer with JSON or raise :class:`CliError`."""

    def __init__(self, target: Target, *, transport: httpx.BaseTransport | None = None) -> None:
        self._here = target.here
        if not (target.api_key.isascii() and target.api_key.isprintable()):
            raise CliError(Exit.DENIED, "invalid_api_key", "an API key looks like fl_<hexadecimal id>_<secret>")
        try:
            self._http = httpx.Client(
                base_url=target.url,
                headers={"Authorization": f"Bearer {target.api_key}"},
                timeout=httpx.Timeout(60.0, connect=5.0),
                transport=transport,
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise CliError(Exit.INVALID, "invalid_url", f"{target.url!r}: {error}") from error

    def file(self, given: str) -> str:
        """A file's name as the coordinator understands it: one on the same machine does not know our folder."""
        return str(Path(given).absolute()) if self._here and "://" not in given else given

    def get(self, path: str, **query: Any) -> Json:
        """GET with the query's None left out."""
        return self._json(self._send("GET", path, params=_given(query)))

    def post(self, path: str, body: Json | None = None, **query: Any) -> Json:
        """POST that acts once, however often the network makes us repeat it."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._json(self._send("POST", path, params=_given(query), json=body, headers=headers))

    def put(self, path: str, body: Json) -> Json:
        """PUT."""
        return self._json(self._send("PUT", path, json=body))

    def patch(self, path: str, body: Json) -> Json:
        """PATCH."""
        return self._json(self._send("PATCH", path, json=body))

    def delete(self, path: str) -> None:
        """DELETE."""
        self._send("DELETE", path)

    def upload(self, path: str, content: Iterable[bytes], **query: Any) -> Json:
        """POST of bytes."""
        headers = {"Content-Type": "application/octet-stream"}
        return self._json(self._send("POST", path, params=_given(query), content=content, headers=headers))

    def download(self, path: str, file: Path) -> int:
        """GET bytes into a file, whole or not at all; their number."""
        draft = file.with_name(f".{file.name}.part")
        try:
            with self._http.stream("GET", _checked(path)) as response, draft.open("wb") as out:
                if response.is_error:
                    response.read()
                    raise _problem(response)
                size = sum(out.write(piece) for piece in response.iter_bytes())
            draft.replace(file)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        except OSError as error:
            raise CliError(Exit.OTHER, "cannot_write", f"{file}: {error.strerror}") from error
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
            raise CliError(Exit.INVALID, "invalid_argument", f"this cannot be sent: {error}") from error
        if response.is_error:
            raise _problem(response)
        return response

    def _json(self, response: httpx.Response) -> Json:
        try:
            body: Json = response.json()
        except ValueError as error:
            raise CliError(Exit.OTHER, "not_a_coordinator", f"{self._http.base_url} does not speak JSON") from error
        return body

    def _unreachable(self, error: Exception) -> CliError:
        return CliError(
            Exit.UNAVAILABLE, "coordinator_unreachable", f"no answer from {self._http.base_url}: {error or type(error)}"
        )


def _checked(path: str) -> str:
    """The path of a request; an id with a slash or a question mark in it would ask for something else."""
    if re.fullmatch(r"(/[A-Za-z0-9][A-Za-z0-9_.:-]*)+", path) is None:
        raise CliError(Exit.INVALID, "invalid_name", f"{path.removeprefix('/v1/')!r} does not name one thing")
    return path


def _problem(response: httpx.Response) -> CliError:
    try:
        body = response.json()
        return CliError(of_status(response.status_code), str(body["code"]), str(body["detail"]))
    except (ValueError, KeyError, TypeError):
        return CliError(of_status(response.status_code), f"http_{response.status_code}", response.text[:200])


def _given(query: Mapping[str, Any]) -> Json:
    return {name: value for name, value in query.items() if value is not None}
