"""``--wait``: a progress bar on standard error until something has ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fogline_server.cli.api import Api, CliError
from fogline_server.cli.exits import OF_KIND, Exit
from fogline_shared.errors import FoglineError

Json = dict[str, Any]
_POLL_S = 0.5
# A coordinator that restarts is back within this time.
_PATIENCE_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a thing is: a line for people, work done of a total, and whether it has ended well or badly."""

    text: str
    done: int
    total: int
    ended: bool = False
    failure: str = ""


def wait(api: Api, path: str, read: Callable[[Json], Standing], *, title: str) -> Json:
    """Poll ``path`` until it has ended and return it; raises CliError of exit code 7 when it ended badly.

    A coordinator that is away meanwhile is waited for.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(title, total=None, text="")
        while True:
            thing = _patiently(api, path)
            standing = read(thing)
            progress.update(bar, completed=standing.done, total=standing.total or None, text=standing.text)
            if standing.ended:
                break
            time.sleep(_POLL_S)
    if standing.failure:
        raise CliError(Exit.FAILED, f"{title.split(maxsplit=1)[0]}_failed", standing.failure)
    return thing


def _patiently(api: Api, path: str) -> Json:
    end = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return api.get(path)
        except FoglineError as error:
            if OF_KIND.get(error.kind) is not Exit.UNAVAILABLE or time.monotonic() > end:
                raise
            time.sleep(_POLL_S)


def _why(thing: Mapping[str, Any]) -> str:
    error = thing.get("error")
    said = f"{error.get('code')}: {error.get('message')}" if isinstance(error, dict) else str(thing.get("reason") or "")
    return f"{thing['id']} is {thing['state']}" + (f": {said}" if said else "")


def job(thing: Json) -> Standing:
    """A job's standing."""
    bad = thing["state"] in ("FAILED", "CANCELED")
    return Standing(
        text=f"{thing['state']} {thing['message']}".strip(),
        done=thing["done"],
        total=thing["total"],
        ended=bad or thing["state"] == "SUCCEEDED",
        failure=_why(thing) if bad else "",
    )


def run(thing: Json) -> Standing:
    """A run's standing, in rounds."""
    bad = thing["state"] in ("FAILED", "CANCELED")
    return Standing(
        text=thing["state"],
        done=thing["rounds_done"],
        total=thing["rounds_total"],
        ended=bad or thing["state"] == "SUCCEEDED",
        failure=_why(thing) if bad else "",
    )


def release(thing: Json) -> Standing:
    """A release's standing, in measured variants."""
    variants = thing["variants"]
    return Standing(
        text=thing["state"],
        done=sum(variant["metrics"] is not None for variant in variants),
        total=len(variants),
        ended=thing["state"] != "BUILDING",
        failure=_why(thing) if thing["state"] == "FAILED" else "",
    )


def rollout(thing: Json) -> Standing:
    """A rollout's standing, in stages."""
    stages = len(thing["plan"]["stages"])
    done = stages if thing["state"] == "SUCCEEDED" else min(thing["current_stage"], stages)
    ended = thing["state"] in ("SUCCEEDED", "ROLLED_BACK", "CANCELED", "SUPERSEDED")
    return Standing(
        text=f"{thing['state']} {thing['reason'][:80]}".strip(),
        done=done,
        total=stages,
        ended=ended,
        failure=_why(thing) if ended and thing["state"] != "SUCCEEDED" else "",
    )
