"""A whole run of a recipe over people's devices, in this process: what benchmarks of accuracy compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Result:
    """``accuracy``: on the recipe's unseen; bytes of all rounds' replies, as sent and as they would be plain."""

    accuracy: float
    statistics: Any
    bytes_sent: int
    bytes_plain: int


def train(recipe: Any, people: Sequence[int], *, known: Any = None, **fields: object) -> Result:
    """``fields`` are the run spec's; ``known``: statistics of a run before, instead of this one's own."""
    from fogline_client.training.app import build_app
    from fogline_recipes import parameters
    from fogline_server.training import whole_run
    from fogline_server.training.in_process import InProcessGrid
    from fogline_server.training.spec import RunSpec
    from fogline_shared import flower

    spec = RunSpec(**{"recipe": recipe.name, "min_devices": 1, **fields}).resolved(recipe)
    grid = InProcessGrid({node: (build_app(recipe), {"person": str(node)}) for node in people})
    run = whole_run.train(grid, recipe, spec, known=known)
    model = recipe.model(spec.size, seed=spec.seed)
    parameters.write(model, flower.arrays_of(run.arrays))
    return Result(
        accuracy=recipe.evaluate(model, recipe.unseen(), run.statistics.standardisation).accuracy,
        statistics=run.statistics,
        bytes_sent=run.bytes_sent,
        bytes_plain=run.bytes_plain,
    )
