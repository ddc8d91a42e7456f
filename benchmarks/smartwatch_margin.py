"""Is federating worth it? Accuracy on two people nobody trained on: federated student minus the mean local-only student.

Five pairs of people recorded together, three seeds. Everybody else trains except the cloud's volunteer, as the installed
recipe has it. Local-only is a federation of one: the same model, augmentation, epochs, learning rates and, in its favour,
the federation's standardisation.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from harness import Figure, Options, progress
from simulated_run import train

PAIRS = ((1, 2), (3, 4), (5, 6), (7, 10), (8, 9))
SEEDS = (0, 1, 2)
LIMIT_POINTS = 8.0


def measure(options: Options) -> list[Figure]:
    """The margin in points: mean over pairs and seeds, spread over pairs."""
    cases = [(PAIRS[3], 0, 2)] if options.quick else [(pair, seed, None) for pair in PAIRS for seed in SEEDS]
    context = multiprocessing.get_context("spawn")
    results = []
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        for (pair, seed, _), (federated, local) in zip(
            cases, pool.map(_compare, *zip(*cases, strict=True)), strict=True
        ):
            progress(f"people {pair}, seed {seed}: federated {federated:.1f}, local-only {local:.1f}")
            results.append({"pair": pair, "seed": seed, "federated": federated, "local_only": local})
    margins = {
        pair: statistics.mean(r["federated"] - r["local_only"] for r in results if r["pair"] == pair)
        for pair in dict.fromkeys(r["pair"] for r in results)
    }
    return [
        Figure(
            name="federated minus local-only, unseen people",
            unit="points",
            ours=statistics.mean(margins.values()),
            spread=statistics.stdev(margins.values()) if len(margins) > 1 else 0.0,
            peer=LIMIT_POINTS,
            peer_name="limit",
            target=1.0,
            higher_is_better=True,
            detail={
                "cases": results,
                "pairs_better": sum(m > 0 for m in margins.values()),
                "spread_over_seeds": _spread_over_seeds(results),
            },
        )
    ]


def _spread_over_seeds(results: Sequence[Mapping[str, Any]]) -> float:
    """Standard deviation between seeds of one pair, pooled over the pairs; 0 with one seed."""
    by_pair: dict[Any, list[float]] = {}
    for r in results:
        by_pair.setdefault(r["pair"], []).append(r["federated"] - r["local_only"])
    variances = [statistics.variance(margins) for margins in by_pair.values() if len(margins) > 1]
    return statistics.mean(variances) ** 0.5 if variances else 0.0


def _compare(pair: tuple[int, int], seed: int, rounds: int | None) -> tuple[float, float]:
    """Accuracy in percent: of the federation's student, and of the local students' mean."""
    import torch

    from fogline_recipes.smartwatch import VOLUNTEER, Smartwatch

    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    # Person 3 volunteers; when he is among the unseen, person 5 does.
    recipe = Smartwatch(unseen=pair, volunteer=VOLUNTEER if VOLUNTEER not in pair else 5)
    people = recipe.training_people
    federated = train(recipe, people, seed=seed, rounds=rounds)
    local = [
        train(recipe, [person], known=federated.statistics, seed=seed, rounds=rounds).accuracy for person in people
    ]
    return 100 * federated.accuracy, 100 * statistics.mean(local)
