"""A run from its first round to its last over any Flower grid, in one go: no database, no checkpoints, no cohorts by condition.

What a run over the gateway must agree with to the byte, and how a recipe runs on stock Flower.
"""

from __future__ import annotations

from dataclasses import dataclass

from fogline_recipes import parameters
from fogline_server.training import rounds
from fogline_server.training.cohort_grid import CohortGrid
from fogline_server.training.spec import RunSpec
from fogline_server.training.statistics import Statistics
from fogline_shared import flower
from fogline_shared.flower import ArrayRecord
from fogline_shared.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class WholeRun:
    """How it ended; bytes of all training replies, as they were sent and as they would be plain."""

    arrays: ArrayRecord
    statistics: Statistics
    bytes_sent: int
    bytes_plain: int


def train(grid: CohortGrid, recipe: Recipe, spec: RunSpec, *, known: Statistics | None = None) -> WholeRun:
    """``spec`` is resolved; ``known``: statistics of an earlier run, instead of a round 0. Raises what a round raises."""
    rule, model = spec.rule(), recipe.model(spec.size, seed=spec.seed)
    strategy = rule.build(recipe)
    arrays = flower.to_record(parameters.read(model))
    statistics = known or rounds.gather_statistics(grid, recipe, needed=spec.fewest_updates)[0]
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
            needed=spec.fewest_updates,
            running=[name for name, _ in model.named_buffers() if name in arrays],
            adaptive=rule.adaptive,
            codec=spec.update_codec(),
        )
        arrays = trained.arrays
        sent, plain = sent + trained.bytes_sent, plain + trained.bytes_plain
    return WholeRun(arrays=arrays, statistics=statistics, bytes_sent=sent, bytes_plain=plain)
