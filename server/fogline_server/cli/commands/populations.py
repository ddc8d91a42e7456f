"""``fogline population``."""

from __future__ import annotations

from typing import Annotated

import typer

from fogline_server.cli import show
from fogline_server.cli.options import AsJson, Limit, Tags, api, group

app = group("Groups of devices with a budget of differential privacy.")

_COLUMNS: tuple[show.Column, ...] = (
    ("name", "name"),
    ("recipe", "recipe"),
    ("tags", "tags"),
    ("ε", "epsilon"),
    ("δ", "delta"),
    ("ε spent", lambda p: f"{p['spent']:.3f}"),
    ("and reserved", lambda p: f"{p['committed']:.3f}"),
    ("created", show.when("created_at")),
)


@app.command("create")
def create(
    context: typer.Context,
    name: str,
    *,
    recipe: Annotated[str, typer.Option(help="Of its devices.")],
    epsilon: Annotated[float, typer.Option(help="The budget of all runs together.")],
    delta: Annotated[float, typer.Option(help="Well below one over the number of devices.")] = 1e-5,
    tag: Tags = None,
) -> None:
    """Give the devices with a recipe and tags a budget; no run uses their data but at its cost."""
    body = {"name": name, "recipe": recipe, "tags": tag or [], "epsilon": epsilon, "delta": delta}
    item = api(context).post("/v1/populations", body)
    show.note(f"population {item['name']} has ε {item['epsilon']:g} at δ {item['delta']:g}")


@app.command("list")
def list_populations(context: typer.Context, *, limit: Limit = 50, as_json: AsJson = False) -> None:
    """Populations, by name."""
    items = api(context).items("/v1/populations", limit=limit)
    if as_json:
        return show.json_out(items)
    return show.table(items, _COLUMNS, empty="no populations; `fogline population create` makes one")


@app.command("show")
def show_population(context: typer.Context, name: str, *, as_json: AsJson = False) -> None:
    """One population and where its budget stands."""
    item = api(context).get(f"/v1/populations/{name}")
    if as_json:
        return show.json_out(item)
    return show.record(item, _COLUMNS)
