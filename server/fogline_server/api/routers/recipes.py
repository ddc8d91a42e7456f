"""/v1/recipes: what is installed at the coordinator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi import APIRouter
from pydantic import Field

from fogline_server.api.problems import responses
from fogline_server.api.schemas import PathId, Resource
from fogline_shared.errors import InvalidInput, NotFound
from fogline_shared.plugins import entry_point_names
from fogline_shared.recipe import GROUP, load_recipe

router = APIRouter(prefix="/recipes", tags=["recipes"])


class RecipeView(Resource):
    """``rounds``: the default number of rounds by size; ``error``: why an installed recipe cannot be used."""

    name: str
    classes: Sequence[str] = ()
    input_shape: Sequence[int] = ()
    sizes: Sequence[str] = ()
    rounds: Mapping[str, int] = Field(default_factory=dict)
    device_options: Mapping[str, str] = Field(default_factory=dict)
    error: str | None = None


class Recipes(Resource):
    items: list[RecipeView]


def _show(name: str) -> RecipeView:
    try:
        recipe = load_recipe(name)
    except InvalidInput as error:
        return RecipeView(name=name, error=error.message)
    return RecipeView(
        name=name,
        classes=list(recipe.classes),
        input_shape=list(recipe.input_shape),
        sizes=list(recipe.sizes),
        rounds=dict(recipe.rounds),
        device_options=dict(recipe.device_options),
    )


@router.get("")
def list_recipes() -> Recipes:
    """Every installed recipe, by name."""
    return Recipes(items=[_show(name) for name in entry_point_names(GROUP)])


@router.get("/{name:id}", responses=responses(404))
def get_recipe(name: PathId) -> RecipeView:
    """One recipe."""
    if name not in entry_point_names(GROUP):
        raise NotFound("recipe_not_found", f"no recipe {name}")
    return _show(name)
