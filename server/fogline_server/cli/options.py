"""Options that many commands share, and the connection they use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from fogline_server.cli.api import Api, CliError, find_target
from fogline_server.cli.exits import Exit

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Wait = Annotated[bool, typer.Option("--wait", help="Show progress until it has ended; exit 7 if it fails.")]
Limit = Annotated[int, typer.Option(min=1, help="At most so many.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="May be repeated.")]

# Headings of a run's options in --help.
TRAINING, DEVICES, ROUNDS, UPDATES = "Training", "Devices", "Rounds", "Updates and privacy"

# Of a run, live or simulated.
Texts = list[str] | None
Size = Annotated[str, typer.Option(help="teacher, student, or another size of the recipe.", rich_help_panel=TRAINING)]
Rounds = Annotated[int | None, typer.Option(help="Default: the recipe's.", rich_help_panel=TRAINING)]
Strategy = Annotated[
    str, typer.Option(help="How updates become a new model: docs/strategies.md.", rich_help_panel=TRAINING)
]
StrategyOptions = Annotated[
    Texts, typer.Option(help="Of the strategy: key=value, may be repeated.", rich_help_panel=TRAINING)
]
Plan = Annotated[
    Texts, typer.Option(help="Of each device: epochs=2, learning_rate=…; may be repeated.", rich_help_panel=TRAINING)
]
SizeOf = Annotated[
    Texts,
    typer.Option(
        help="CLASS=SIZE: devices of a class train another size, whose ensemble teaches --size; may be repeated.",
        rich_help_panel=DEVICES,
    ),
]
EnsembleOptions = Annotated[
    Texts,
    typer.Option(
        help="Of --size-of: fusion=median, steps=200, temperature=1 …; may be repeated.", rich_help_panel=DEVICES
    ),
]
Quorum = Annotated[
    float,
    typer.Option(
        help="Share of a round's devices that must answer, and of --min-devices that must give a usable update.",
        rich_help_panel=ROUNDS,
    ),
]
PacingOptions = Annotated[
    Texts,
    typer.Option(
        help="target=50, over_selection=0.3, self_tuning=true, retries=2 …; may be repeated.", rich_help_panel=ROUNDS
    ),
]
PrivacyOptions = Annotated[
    Texts,
    typer.Option(
        help="population=NAME, noise_multiplier=1, clip=1, clip_quantile=0.5 …; may be repeated.",
        rich_help_panel=UPDATES,
    ),
]
LocalPrivacyOptions = Annotated[
    Texts,
    typer.Option(
        help="Of each update, on its device: epsilon=8, delta=1e-5, clip=1; may be repeated.", rich_help_panel=UPDATES
    ),
]
GateOptions = Annotated[
    Texts,
    typer.Option(help="max_drop=5 (points on the holdout), patience=5; may be repeated.", rich_help_panel=ROUNDS),
]


def group(help_text: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(help=help_text, no_args_is_help=True)


def api(context: typer.Context) -> Api:
    """The connection, made when a command first needs it."""
    root = context.find_root().params
    return Api(find_target(root.get("url"), root.get("api_key")))


def json_argument(text: str | None, name: str) -> dict[str, Any]:
    """A JSON object given on the command line, or in a file as ``@file``; raises CliError ``invalid_json``."""
    if text is None:
        return {}
    try:
        value = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except (OSError, ValueError, RecursionError) as error:
        raise CliError(Exit.INVALID, "invalid_json", f"{name}: {error}") from error
    if not isinstance(value, dict):
        raise CliError(Exit.INVALID, "invalid_json", f"{name}: a JSON object is needed")
    return value


def pairs(items: list[str] | None, name: str) -> dict[str, Any]:
    """``key=value`` items; values are JSON where they can be, else text. Raises CliError ``invalid_option``."""
    found: dict[str, Any] = {}
    for key, value in texts(items, name).items():
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def texts(items: list[str] | None, name: str) -> dict[str, str]:
    """``key=value`` items, values as they stand. Raises CliError ``invalid_option``."""
    found = {}
    for item in items or ():
        key, equals, value = item.partition("=")
        if not equals or not key:
            raise CliError(Exit.INVALID, "invalid_option", f"{name} {item!r}: write key=value")
        found[key] = value
    return found
