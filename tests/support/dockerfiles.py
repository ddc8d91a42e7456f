"""What a Dockerfile says of its last (or a named) stage, without building it, and which packages it installs."""

from __future__ import annotations

import functools
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
_EXTRAS = re.compile(r"'\.\[(?P<extras>[a-z,]+)\]'")


@dataclass
class Stage:
    """One FROM and what follows it, with what it inherits from a stage of the same file."""

    base: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    user: str = ""


def stages(path: Path) -> dict[str, Stage]:
    """Stages by name, or by number when they have none; ``ARG`` defaults that come before a FROM are filled in."""
    found: dict[str, Stage] = {}
    arguments: dict[str, str] = {}
    for word, rest in _instructions(path):
        if word == "ARG" and not found:
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "FROM":
            base, _, name = rest.partition(" AS ")
            base = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], base)
            parent = found.get(base, Stage(base=base))
            stage = Stage(parent.base, list(parent.lines), dict(parent.env), list(parent.command), parent.user)
            found[name or str(len(found))] = stage
        else:
            stage.lines.append((word, rest))
            if word == "ENV":
                stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            elif word == "CMD":
                stage.command = json.loads(rest)
            elif word == "USER":
                stage.user = rest
    return found


def stage_of(build: dict[str, str]) -> tuple[Stage, list[Stage]]:
    """The stage that a compose file's ``build`` names, and the stages that it copies from."""
    found = stages(ROOT / build["dockerfile"])
    stage = found[build.get("target") or list(found)[-1]]
    sources = [match[1] for word, rest in stage.lines if word == "COPY" and (match := re.match(r"--from=(\S+)", rest))]
    return stage, [found[name] for name in sources]


def extras_of(build: dict[str, str]) -> frozenset[str]:
    """The extras of Fogline that the image installs."""
    _, sources = stage_of(build)
    texts = [rest for source in sources for word, rest in source.lines if word == "RUN"]
    return frozenset(
        extra for text in texts for match in _EXTRAS.finditer(text) for extra in match["extras"].split(",")
    )


@functools.cache
def packages_of(extras: frozenset[str]) -> frozenset[str]:
    """Every distribution that ``fogline[extras]`` brings, as the metadata of the installed ones tells."""
    seen: set[tuple[str, str]] = set()
    waiting = [("fogline", extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(requirement.name), more) for more in ("", *requirement.extras)]
    return frozenset(name for name, _ in seen)


@functools.cache
def absent_modules(packages: frozenset[str]) -> set[str]:
    """Top-level modules of this environment that an image with those packages would not have."""
    return {
        module
        for module, owners in metadata.packages_distributions().items()
        if not any(canonicalize_name(owner) in packages for owner in owners)
    }


def _instructions(path: Path) -> Iterator[tuple[str, str]]:
    text = re.sub(r"(?m)^\s*#.*\n", "", path.read_text()).replace("\\\n", " ")
    for line in filter(str.strip, text.splitlines()):
        word, _, rest = line.partition(" ")
        yield word, rest.strip()
