"""A run's spec as a file: what `fogline run start` makes of it and of its options, what `fogline run show --spec` prints."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from fogline_server.cli.api import CliError
from fogline_server.cli.exits import Exit
from fogline_server.cli.options import json_argument

# What an option makes void of the spec: options of another strategy or codec, another beginning.
_VOID = {"strategy": "strategy_options", "codec": "codec_options", "init_from_release": "init_from"}


def read(given: str | None) -> dict[str, Any]:
    """The spec in a file, or JSON as it stands; raises CliError ``invalid_json``."""
    if given is None or given.startswith(("{", "@")):
        return json_argument(given, "--spec")
    return json_argument(f"@{given}", "--spec")


def body(spec: Mapping[str, Any], options: Mapping[str, Any], *, unset: Container[str]) -> dict[str, Any]:
    """What to send: the spec with the options over it, those of an object one by one.

    ``unset``: options that nobody gave, whose defaults count only where the spec says nothing. Raises CliError ``invalid_option``.
    """
    if options["recipe"] is None and "recipe" not in spec:
        raise CliError(Exit.INVALID, "invalid_option", "name a RECIPE, or give a --spec that does")
    unset = {name for name, value in options.items() if name in unset or value in (None, [])}
    void = {own for name, own in _VOID.items() if name not in unset and options[name] != spec.get(name)}
    return _over({name: value for name, value in spec.items() if name not in void}, options, unset)


def _over(spec: Mapping[str, Any], options: Mapping[str, Any], unset: Container[str]) -> dict[str, Any]:
    found = dict(spec)
    for name, value in options.items():
        known = spec.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            found[name] = _over(known, value, ())
        elif name not in spec or (name not in unset and value != {}):
            found[name] = value
    return found


def reusable(run: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a run in the form that starts another. Rounds that were added to it later are not part of that."""
    return {name: value for name, value in run["spec"].items() if name != "extensions"}
