"""``fogline recipe``."""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fogline_server.cli import show
from fogline_server.cli.api import CliError
from fogline_server.cli.exits import Exit
from fogline_server.cli.options import AsJson, api, group, texts
from fogline_shared.errors import FoglineError
from fogline_shared.recipe import Options, Recipe, load_recipe

if TYPE_CHECKING:
    from fogline_recipes.check import Checked

app = group("What can be learned.")

_COLUMNS = (
    ("name", "name"),
    ("sizes", "sizes"),
    ("input", "input_shape"),
    ("classes", "classes"),
    ("error", "error"),
)
_TRIES = (
    ("size", "size"),
    ("numbers", "numbers"),
    ("seconds an epoch", "seconds"),
    ("loss", "loss"),
    ("accuracy", lambda t: f"{t['accuracy']:.1%}"),
)


@app.command("list")
def list_recipes(context: typer.Context, *, as_json: AsJson = False) -> None:
    """Recipes installed at the coordinator."""
    items = api(context).get("/v1/recipes")["items"]
    if as_json:
        return show.json_out(items)
    return show.table(items, _COLUMNS, empty="no recipes are installed")


@app.command("check")
def check(
    recipe: str,
    *,
    option: Annotated[
        list[str] | None, typer.Option(help="What a device is told: name=value, may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Try RECIPE in this environment, without a coordinator: its data, one epoch of each size, export, int8."""
    told = texts(option, "--option")
    try:
        found = _try(load_recipe(recipe), told)
    except FoglineError:
        raise
    except Exception as error:  # a recipe is somebody else's code, and its author wants to know where it failed
        show.note(traceback.format_exc().rstrip())
        raise CliError(Exit.INVALID, "broken_recipe", f"{type(error).__name__}: {error}") from error
    if as_json:
        return show.json_out(found)
    show.record(found["examples"], [(f"{name} examples", name) for name in found["examples"]])
    show.table(found["sizes"], _TRIES, empty="")
    return show.record(found["bytes"], [(f"{name} bytes", name) for name in found["bytes"]])


def _try(recipe: Recipe, options: Options) -> dict[str, Any]:
    import torch

    from fogline_recipes.check import check as check_recipe

    torch.set_num_threads(1)  # as devices train
    logging.disable(logging.WARNING)  # the quantizer's advice, which export follows where it helps
    checked = check_recipe(recipe, options)
    sizes = [
        {
            "size": size,
            "numbers": tried.count,
            "seconds": round(tried.seconds, 3),
            "loss": round(tried.loss, 4),
            "accuracy": round(tried.accuracy, 4),
        }
        for size, tried in checked.sizes.items()
    ]
    return {"recipe": recipe.name, "examples": checked.examples, "sizes": sizes, "bytes": _exported(recipe, checked)}


def _exported(recipe: Recipe, checked: Checked) -> dict[str, int]:
    """Bytes of each variant a release would have."""
    from fogline_server.registry.build import build_artifacts
    from fogline_server.registry.taught import Source
    from fogline_shared import tensors

    sources = {
        size: Source(
            params=b"".join(tensors.encode(checked.sizes[size].parameters)), standardisation=checked.standardisation
        )
        for size in ("teacher", "student")
    }
    return {name: len(data) for name, data in sorted(build_artifacts(recipe, sources).artifacts.items())}
