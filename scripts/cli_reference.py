"""Write docs/cli.md from the parsers of `fogline` and `fogline-agent`; with --check, say whether it is what it would be."""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import typer.main

from fogline_client import cli as agent
from fogline_server.cli import main as server
from fogline_server.cli.exits import MEANING

PAGE = Path(__file__).resolve().parent.parent / "docs/cli.md"
HEAD = """# Command line

Generated from the parsers by `scripts/cli_reference.py`. Results go to standard output, everything else to standard error; `--json`
prints JSON, `--limit` bounds a list, `--wait` shows progress until what was started has ended and exits with 7 if it fails; these
three are not repeated below. `+`: may be repeated. Every error is one line, `error: code: message`; [errors.md](errors.md) lists the codes. `--help` tells more.
"""
_SAID_ABOVE = {"--json", "--limit", "--wait"}


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, app in (("fogline", server.app), ("fogline-agent", agent.app)):
        command = typer.main.get_command(app)
        parts.append(f"\n## {name}\n")
        parts.append(f"\n{_sentence(command)}\n")
        if name == "fogline":
            codes = "; ".join(f"{int(code)} {meaning}" for code, meaning in MEANING.items())
            parts.append(f"\nExit codes: {codes}.\n")
        else:
            text = " ".join((agent.__doc__ or "").split("Exit codes: ")[1].split())
            parts.append(f"\nExit codes: {text}\n")
        parts += list(_options(command))
        for path, each in _leaves(command, name):
            words = " ".join([path, *(_usage(p) for p in each.params if isinstance(p, click.Argument))])
            parts.append(f"\n### `{words}`\n\n{_sentence(each)}\n")
            parts += list(_options(each))
    return "".join(parts)


def _leaves(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name, each in command.commands.items():
        if not each.hidden:
            yield from _leaves(each, f"{path} {name}")


def _sentence(command: click.Command) -> str:
    return " ".join((command.help or "").split())


def _usage(argument: click.Argument) -> str:
    name = (argument.metavar or argument.name or "").upper()
    name = f"{name}…" if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


def _options(command: click.Command) -> Iterator[str]:
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden and p.name != "help"]
    options = [p for p in options if not {*p.opts} & _SAID_ABOVE and "completion" not in (p.name or "")]
    if options:
        yield "\n"
    for option in options:
        given = "" if option.is_flag else f" {option.name.upper()}" if option.name else ""
        names = "/".join([*option.opts, *option.secondary_opts])
        told = _told(option)
        yield f"- `{names}{given}`{' +' if option.multiple else ''}{f': {told}' if told else ''}\n"


def _told(option: click.Option) -> str:
    told = [(option.help or "").replace("May be repeated.", "").strip().rstrip(".")]
    variable = option.envvar if isinstance(option.envvar, str) else None
    if variable:
        told.append(f"`{variable}`")
    if option.required:
        told.append("required")
    elif option.default not in (None, "") and not callable(option.default) and not option.is_flag:
        told.append(f"default {option.default}")
    return "; ".join(part for part in told if part)


def main() -> None:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    if not parser.parse_args().check:
        PAGE.write_text(page())
    elif PAGE.read_text() != page():
        sys.exit("docs/cli.md is stale: run scripts/cli_reference.py")
    else:
        print("docs/cli.md is fresh")  # noqa: T201


if __name__ == "__main__":
    # The reference is the same whoever generates it.
    for variable in [name for name in os.environ if name.startswith("FOGLINE_")]:
        del os.environ[variable]
    main()
