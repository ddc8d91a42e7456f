"""``fogline``: the admin command line. Most commands speak to a coordinator's REST API; a few are processes."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

import fogline_shared
from fogline_server.cli import processes
from fogline_server.cli.api import CliError
from fogline_server.cli.commands import (
    devices,
    jobs,
    others,
    populations,
    privacy,
    recipes,
    releases,
    rollouts,
    runs,
    searches,
    simulate,
    storage,
    trust,
)
from fogline_server.cli.exits import MEANING, OF_KIND, Exit
from fogline_server.demo.cli import demo
from fogline_shared.errors import FoglineError

_EPILOG = "Exit codes: " + "; ".join(f"{int(code)} {meaning}" for code, meaning in MEANING.items()) + "."

app = typer.Typer(
    name="fogline",
    help="Federated edge-cloud orchestration.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(processes.app)
app.command()(demo)
app.command()(simulate.simulate)
app.command()(searches.compress)
for _name, _group in {
    "device": devices.devices,
    "token": devices.tokens,
    "run": runs.app,
    "release": releases.app,
    "search": searches.app,
    "rollout": rollouts.app,
    "job": jobs.app,
    "schedule": others.schedules,
    "event": others.events,
    "key": others.keys,
    "recipe": recipes.app,
    "privacy": privacy.app,
    "population": populations.app,
    "trust": trust.app,
    "storage": storage.app,
}.items():
    app.add_typer(_group, name=_name)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        sys.stdout.write(f"fogline {fogline_shared.__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    *,
    url: Annotated[
        str | None, typer.Option(envvar="FOGLINE_URL", help="Coordinator; default: the `fogline up` of this folder.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="FOGLINE_API_KEY", help="Default: what `fogline up` has made.")
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Federated edge-cloud orchestration."""
    # Commands find the options at the root of their context; see cli.options.api.
    del url, api_key, version


def run() -> None:
    """The console script: whatever goes wrong is one line on standard error and a documented exit code."""
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here a full disk can still be told
    except CliError as error:
        _fail(error.exit_code, str(error))
    except FoglineError as error:
        _fail(OF_KIND.get(error.kind, Exit.OTHER), str(error))
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        sys.exit(Exit.OK)
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - what is left in the old one can go nowhere
        _fail(Exit.OTHER, f"cannot_write: {error.strerror or error}")


def _fail(code: Exit, text: str) -> None:
    sys.stderr.write(f"error: {text}\n")
    sys.exit(code)
