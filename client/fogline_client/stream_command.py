"""``fogline-agent stream``: a pipeline from a file, over the active model or one artifact."""

from __future__ import annotations

import signal
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fogline_client.terminal import DEFAULT_STATE, StateOption, failures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fogline_client.inference.predictor import Predictor
    from fogline_client.streams.pipeline import Pipeline


def stream(
    pipeline: Annotated[Path, typer.Option(help="TOML file: sources, sensors, windows, stages, sinks, limits")],
    state_dir: StateOption = DEFAULT_STATE,
    model: Annotated[
        Path | None, typer.Option(help="an artifact's file to ask, instead of the agent's active model")
    ] = None,
    every: Annotated[float, typer.Option(help="seconds between lines of counters on standard error; 0: none")] = 10.0,
    *,
    check: Annotated[bool, typer.Option("--check", help="print the plan and run nothing")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="the summary and errors as JSON, on standard error")] = False,
) -> None:
    """Predict on streams of sensors until they end, SIGINT or SIGTERM; then say what was counted, on standard error."""
    with failures(as_json=as_json):
        import json

        from fogline_client.streams.spec import read_spec

        spec = read_spec(pipeline)
        if check:
            typer.echo(spec.plan())
            return
        with _predictor(state_dir, model) as predictor:
            built = spec.build(predictor)
            with _signals() as stop, _told(built, every):
                summary = built.run(stop)
        typer.echo(json.dumps(summary.facts()) if as_json else f"ended: {summary.line()}", err=True)
        if built.failed is not None:
            raise built.failed


def ring(
    file: Annotated[Path, typer.Argument(help="what the sink `ring` writes")],
    limit: Annotated[int, typer.Option(help="only so many of the newest; 0: all")] = 0,
) -> None:
    """Print the answers in a ring, oldest first, as JSON lines; a pipeline may be writing it."""
    with failures(as_json=False):
        import json

        from fogline_client.streams.sinks.ring import read_ring

        for record in read_ring(file)[-max(limit, 0) :]:
            typer.echo(json.dumps(record))


def _predictor(state_dir: Path, model: Path | None) -> Predictor:
    """Raises InvalidInput ``model_not_readable`` or ``not_configured``, and as the predictor."""
    from fogline_client.inference.predictor import Predictor
    from fogline_shared.errors import InvalidInput

    if model is None:
        if not state_dir.is_dir():
            raise InvalidInput("not_configured", f"no {state_dir}: say where the agent's folder is, or a --model")
        return Predictor.open(state_dir)
    try:
        return Predictor.from_file(model)
    except OSError as error:
        raise InvalidInput("model_not_readable", f"{model} cannot be read: {error}", path=str(model)) from error


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """Set by SIGINT and SIGTERM; a second one ends the process, should a source or sink hang."""
    stop = threading.Event()

    def told(number: int, frame: object) -> None:
        del frame
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, told) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _told(pipeline: Pipeline, every: float) -> Iterator[None]:
    """Print the counters now and then."""
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(every):
            print(pipeline.summary().line(), file=sys.stderr, flush=True)  # noqa: T201

    if every > 0:
        threading.Thread(target=tell, name="counters", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
