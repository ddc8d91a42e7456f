"""The CLI's connection: the admin REST API over HTTP, nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fogline_server.cli.exits import Exit
from fogline_server.rest import Rest


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


class Api(Rest):
    """The admin API at a target."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.url, target.api_key)
        self._here = target.here

    def file(self, given: str) -> str:
        """A file's name as the coordinator understands it: one on the same machine does not know our folder."""
        return str(Path(given).absolute()) if self._here and "://" not in given else given
