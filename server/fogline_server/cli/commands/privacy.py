"""``fogline privacy``."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Annotated

import typer

from fogline_server.cli import show
from fogline_server.cli.options import AsJson, group
from fogline_server.training.privacy.planning import DROWNED, devices_for, outlook

app = group("Differential privacy: what a fleet of a size can have.")

_TIMES = (1, 10, 100, 1000)
_COLUMNS: tuple[show.Column, ...] = (
    ("devices a round", "devices"),
    ("noise multiplier", "noise_multiplier"),
    ("noise a value / clip", lambda o: f"{o['per_value']:.3g}"),
    ("noise / longest update", lambda o: f"{o['noise_to_update']:.3g}"),
)


@app.callback()
def _group() -> None:
    """Keep ``plan`` a command of its own."""


@app.command("plan")
def plan(
    *,
    devices: Annotated[int, typer.Option(help="How many take part in a round.")],
    rounds: Annotated[int, typer.Option(help="Of all runs that share the budget.")],
    epsilon: Annotated[float, typer.Option(help="The budget over all rounds.")],
    parameters: Annotated[int, typer.Option(help="Values in an update.")],
    delta: Annotated[float, typer.Option(help="Well below one over the number of devices.")] = 1e-5,
    local: Annotated[bool, typer.Option("--local", help="Each device adds the noise itself.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print how much Gaussian noise a budget asks for, and what is left of an update; needs no coordinator."""
    seen = partial(outlook, parameters=parameters, rounds=rounds, target=epsilon, delta=delta, local=local)
    rows = [asdict(seen(devices=devices * by)) for by in _TIMES]
    if as_json:
        return show.json_out(rows)
    show.table(rows, _COLUMNS, empty="")
    noise = rows[0]["noise_multiplier"]
    enough = devices_for(DROWNED, parameters=parameters, noise_multiplier=noise, local=local)
    return show.note(f"from {enough} devices a round on, the noise is shorter than the longest update")
