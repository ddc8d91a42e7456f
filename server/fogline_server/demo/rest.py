"""The admin API as the demo uses it: a thin client that waits for things to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx

from fogline_shared.errors import Unavailable

ENDS = frozenset({"SUCCEEDED", "FAILED", "CANCELED", "READY", "ROLLED_BACK", "SUPERSEDED", "PAUSED"})
Row = Mapping[str, Any]


class Rest:
    """JSON in and out; raises Unavailable with the problem's code for any answer that is not a success."""

    def __init__(self, url: str, api_key: str) -> None:
        self._http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {api_key}"}, timeout=60)

    def get(self, path: str, **query: str | int) -> Any:
        return self._json(self._http.get(path, params=query))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._json(self._http.post(path, json=body) if body is not None else self._http.post(path))

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._json(self._http.put(path, json=body))

    def upload(self, path: str, data: bytes, **query: str) -> Any:
        """POST raw bytes."""
        headers = {"Content-Type": "application/octet-stream"}
        return self._json(self._http.post(path, content=data, params=query, headers=headers))

    def download(self, path: str, target: Path) -> Path:
        """Save an answer's body."""
        response = self._http.get(path)
        if response.is_error:
            self._json(response)
        target.write_bytes(response.content)
        return target

    def wait(self, path: str, *, timeout_s: float, seen: Callable[[Row], None] | None = None) -> Any:
        """Poll until the resource's ``state`` is final; ``seen`` is called with every answer."""
        deadline = time.monotonic() + timeout_s
        while True:
            row = self.get(path)
            if seen:
                seen(row)
            if row["state"] in ENDS:
                return row
            if time.monotonic() > deadline:
                raise Unavailable("demo_step_too_slow", f"{path} is still {row['state']} after {timeout_s:.0f} s")
            time.sleep(0.25)

    @staticmethod
    def _json(response: httpx.Response) -> Any:
        if response.is_error:
            problem = response.json() if "json" in response.headers.get("content-type", "") else {}
            code = problem.get("code", f"http_{response.status_code}")
            raise Unavailable(code, f"{response.request.method} {response.request.url.path}: {problem.get('detail')}")
        return response.json()
