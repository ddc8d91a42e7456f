"""A run of the tiny recipe in this process: what a run over the gateway must agree with to the byte."""

from __future__ import annotations

from tiny_recipe import Tiny

from fogline_client.training.app import build_app
from fogline_server.training import whole_run
from fogline_server.training.in_process import InProcessGrid
from fogline_server.training.spec import RunSpec
from fogline_shared import flower, tensors


def simulate(devices: int, **fields: object) -> str:
    """The digest of the parameters that a run of that spec ends with; device ``i`` has the data of seed ``i``."""
    recipe = Tiny()
    spec = RunSpec(**{"recipe": recipe.name, **fields}).resolved(recipe)
    grid = InProcessGrid({node: (build_app(recipe), {"seed": str(node)}) for node in range(devices)})
    arrays = whole_run.train(grid, recipe, spec).arrays
    return tensors.digest(tensors.encode(flower.arrays_of(arrays)))
