"""What the commands of ``fogline-agent`` have in common: options, output, errors as exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from fogline_shared.errors import ErrorKind, FoglineError

EXITS: Mapping[ErrorKind, int] = {
    ErrorKind.INVALID: 2,
    ErrorKind.UNAVAILABLE: 3,
    ErrorKind.NOT_FOUND: 4,
    ErrorKind.CONFLICT: 5,
    ErrorKind.UNAUTHENTICATED: 6,
    ErrorKind.FORBIDDEN: 6,
    ErrorKind.EXHAUSTED: 7,
}

StateOption = Annotated[Path, typer.Option("--state-dir", envvar="FOGLINE_AGENT_STATE_DIR", help="the device's folder")]
JsonOption = Annotated[bool, typer.Option("--json", help="machine-readable output")]

DEFAULT_STATE = Path(".fogline-agent")


def say(facts: Any, text: str, *, as_json: bool) -> None:
    """To standard output."""
    typer.echo(json.dumps(facts) if as_json else text)


@contextmanager
def failures(*, as_json: bool) -> Iterator[None]:
    """The edge of this process: an error becomes a line (or an object) on stderr and an exit code."""
    try:
        yield
    except FoglineError as error:
        told = {"error": {"code": error.code, "message": error.message, **error.detail}}
        typer.echo(json.dumps(told) if as_json else f"fogline-agent: {error}", err=True)
        raise typer.Exit(3 if error.code == "port_in_use" else EXITS.get(error.kind, 1)) from error
