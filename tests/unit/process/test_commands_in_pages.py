"""Every command that a page of ours shows exists, with each of its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from fogline_client.cli import app as device
from fogline_server.cli.main import app as coordinator

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "server/fogline_server/console/templates").glob("*.html")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
PROGRAMS = {"fogline": typer.main.get_command(coordinator), "fogline-agent": typer.main.get_command(device)}
COMMAND = re.compile(r"(?<![\w./-])(fogline(?:-agent)?) ([a-z][^`<\n|;&#)]*)")


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Program and words, from code in the page: blocks, with their continued lines, and inline."""
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(
        r"`([^`\n]+)`|<code>([^<]+)</code>", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    )
    for code in (*blocks, *(one or other for one, other in inline)):
        for found in COMMAND.finditer(code):
            yield found[1], found[2].split()


def unknown(program: str, words: list[str]) -> list[str]:
    """Subcommands and options of a command line that its program does not have."""
    command = PROGRAMS[program]
    for word in words:
        if not isinstance(command, click.Group):
            break
        if word.startswith(("-", "…", "<", "[")):
            return []
        if word not in command.commands:
            return [word]
        command = command.commands[word]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    return [word for word in (each.partition("=")[0] for each in words) if word.startswith("--") and word not in known]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_a_page_exist(page: Path) -> None:
    wrong = [(program, *words, "has no", each) for program, words in commands(page) for each in unknown(program, words)]
    assert not wrong


def test_a_command_that_does_not_exist_is_found() -> None:
    assert unknown("fogline", ["release", "create", "NAME", "--recipe", "x"]) == ["--recipe"]
    assert unknown("fogline", ["releases"]) == ["releases"]
    assert sum(len(list(commands(page))) for page in PAGES) > 100
