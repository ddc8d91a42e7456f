"""Commands that run processes: ``coordinator``, ``worker``, ``up``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from fogline_server.cli.exits import OF_KIND, Exit
from fogline_server.logs import configure_logs
from fogline_server.settings import Settings
from fogline_shared.errors import FoglineError, InvalidInput

app = typer.Typer(no_args_is_help=True)


@app.command()
def coordinator() -> None:
    """Run a coordinator: admin API, console, edge gateway, reconcile loops. Settings come from FOGLINE_… variables."""
    from fogline_server.bootstrap import build_coordinator

    with _errors_told():
        configure_logs("coordinator")
        asyncio.run(build_coordinator(_settings()).serve())


@app.command()
def worker(
    queues: Annotated[str, typer.Option(help="Which work to take, comma separated.")] = "train,compute",
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Jobs at once; default FOGLINE_WORKER_CONCURRENCY.")
    ] = None,
) -> None:
    """Run a worker: training, compression, evaluation, batch shards."""
    from fogline_server.bootstrap import build_worker
    from fogline_server.worker import run_worker

    with _errors_told():
        configure_logs("worker")
        settings = _settings()
        names = [name.strip() for name in queues.split(",") if name.strip()]
        run_worker(
            build_worker(settings),
            queues=names,
            concurrency=concurrency or settings.worker_concurrency,
            preload=("torch",),
            alive_file=settings.worker_alive_file,
        )


StateDir = Annotated[Path | None, typer.Option(help="Everything lives here; default FOGLINE_STATE_DIR.")]


@app.command()
def up(
    *,
    state_dir: StateDir = None,
    auto_ports: Annotated[bool, typer.Option("--auto-ports", help="Take free ports; see up.json for which.")] = False,
    ready_file: Annotated[Path | None, typer.Option(help="Written once everything serves; not with --detach.")] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once everything serves; `fogline down` stops it.")
    ] = False,
) -> None:
    """Run everything on this machine: SQLite, a bundled Redis, a coordinator and a worker. Ctrl-C stops it all."""
    from fogline_server.embedded.detached import start_detached
    from fogline_server.embedded.up import run_up

    with _errors_told():
        settings = _settings()
        if state_dir is not None:
            settings = settings.model_copy(update={"state_dir": state_dir})
        if detach:
            facts = start_detached(settings.state_dir, auto_ports=auto_ports)
            typer.echo(f"console and API   {facts['url']}\nadmin key         {facts['api_key_file']}", err=True)
            return
        configure_logs("up")
        run_up(settings, auto_ports=auto_ports, ready_file=ready_file, say=lambda line: typer.echo(line, err=True))


@app.command()
def down(*, state_dir: StateDir = None) -> None:
    """Stop the `fogline up` of this folder, and wait until nothing of it is left."""
    from fogline_server.embedded.detached import stop

    with _errors_told():
        stop(state_dir or _settings().state_dir)


def _settings() -> Settings:
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "FOGLINE_" + "_".join(str(part) for part in first["loc"]).upper()
        raise InvalidInput("invalid_setting", f"{name}: {first['msg']}") from error


@contextmanager
def _errors_told() -> Iterator[None]:
    """One line and an exit code instead of a traceback, for errors that have a code."""
    try:
        yield
    except FoglineError as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(OF_KIND.get(error.kind, Exit.OTHER)) from error


if __name__ == "__main__":
    app()
