"""A run of the tiny recipe in this process: what a run over the gateway must agree with to the byte."""

from __future__ import annotations

from tiny_recipe import Tiny

from fogline_client.training.app import build_app
from fogline_recipes import parameters
from fogline_server.training import rounds
from fogline_server.training.in_process import InProcessGrid
from fogline_server.training.spec import RunSpec
from fogline_shared import flower, tensors


def simulate(devices: int, **fields: object) -> str:
    """The digest of the parameters that a run of that spec ends with; device ``i`` has the data of seed ``i``."""
    recipe = Tiny()
    spec = RunSpec(**{"recipe": recipe.name, **fields}).resolved(recipe)
    grid = InProcessGrid({node: (build_app(recipe), {"seed": str(node)}) for node in range(devices)})
    rule = spec.rule()
    strategy, model = rule.build(recipe), recipe.model(spec.size, seed=spec.seed)
    arrays = flower.to_record(parameters.read(model))
    statistics, _ = rounds.gather_statistics(grid, recipe)
    for number in range(1, spec.total_rounds + 1):
        arrays = rounds.train(
            grid,
            strategy,
            arrays,
            number,
            size=spec.size,
            plan=spec.train_plan(recipe, number),
            statistics=statistics,
            max_norm_ratio=spec.max_norm_ratio,
            running=[name for name, _ in model.named_buffers() if name in arrays],
            adaptive=rule.adaptive,
            codec=spec.update_codec(),
        ).arrays
    return tensors.digest(tensors.encode(flower.arrays_of(arrays)))
