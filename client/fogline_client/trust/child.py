"""The process that checks one artifact: ``python -m fogline_client.trust.child``, spoken to over its pipes.

::

    agent → child   {"trust": "/…/trust", "wanted": {…}, "now": 1764014460.0}
    child → agent   {"fetch": "timestamp.json"}
    agent → child   {"size": 512} and so many bytes, {"size": -1} for none, or {"code": …, "kind": …, "message": …}
    child → agent   {"root": 1, "time": …} for yes, or {"code": …, "kind": …, "message": …}
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fogline_client.trust.layout import TrustDir, Wanted
from fogline_shared import errors
from fogline_shared.errors import ErrorKind, FoglineError

OF_KIND = {
    str(each.kind): each
    for each in vars(errors).values()
    if isinstance(each, type) and issubclass(each, FoglineError) and each is not FoglineError
}


def as_json(error: FoglineError) -> dict[str, str]:
    """An error as it passes the pipe."""
    return {"code": error.code, "kind": str(error.kind), "message": error.message}


def from_json(raw: dict[str, Any]) -> FoglineError:
    """An error that passed the pipe."""
    return OF_KIND.get(str(raw["kind"]), FoglineError)(str(raw["code"]), str(raw["message"]))


def main() -> None:
    """Check what the first line asks for, and say the answer."""
    order = json.loads(sys.stdin.buffer.readline())
    try:
        from fogline_client.trust.verify import verify

        floor = verify(
            TrustDir(path=Path(order["trust"])),
            Wanted(**order["wanted"]),
            _fetch,
            now=datetime.fromtimestamp(order["now"], UTC),
        )
        answer: dict[str, Any] = {"root": floor.root, "time": floor.time}
    except FoglineError as error:
        answer = as_json(error)
    except OSError as error:
        answer = {"code": "io_failed", "kind": str(ErrorKind.UNAVAILABLE), "message": str(error)}
    _say(answer)


def _fetch(name: str) -> bytes | None:
    _say({"fetch": name})
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(1)  # the agent is gone
    head = json.loads(line)
    if "code" in head:
        raise from_json(head)
    return sys.stdin.buffer.read(head["size"]) if head["size"] >= 0 else None


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
