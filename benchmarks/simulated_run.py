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
    from fogline_server.training import rounds
    from fogline_server.training.in_process import InProcessGrid
    from fogline_server.training.spec import RunSpec
    from fogline_shared import flower

    spec = RunSpec(**{"recipe": recipe.name, "min_devices": 1, **fields}).resolved(recipe)
    grid = InProcessGrid({node: (build_app(recipe), {"person": str(node)}) for node in people})
    strategy = spec.rule().build(recipe)
    model = recipe.model(spec.size, seed=spec.seed)
    arrays = flower.to_record(parameters.read(model))
    statistics = known or rounds.gather_statistics(grid, recipe)[0]
    sent = plain = 0
    for number in range(1, spec.total_rounds + 1):
        trained = rounds.train(
            grid,
            strategy,
            arrays,
            number,
            size=spec.size,
            plan=spec.train_plan(recipe, number),
            statistics=statistics,
            max_norm_ratio=spec.max_norm_ratio,
            running=[name for name, _ in model.named_buffers() if name in arrays],
            codec=spec.update_codec(),
        )
        arrays = trained.arrays
        sent, plain = sent + trained.bytes_sent, plain + trained.bytes_plain
    parameters.write(model, flower.arrays_of(arrays))
    accuracy = recipe.evaluate(model, recipe.unseen(), statistics.standardisation).accuracy
    return Result(accuracy=accuracy, statistics=statistics, bytes_sent=sent, bytes_plain=plain)
