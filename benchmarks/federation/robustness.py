"""What each rule keeps of a model's accuracy while some of the devices attack: every attack, share, split and rule.

Thirty virtual devices share scikit-learn's digits (``recipes/digits_recipe.py``) and train a small perceptron for twelve
rounds; admission is in place as in a live run. A cell is the mean over the seeds with its standard deviation. A drop is
measured from FedAvg's accuracy with the same seed and split and no attacker. Options of the rules are the same in all cells:
nobody tells a rule how many attackers there are. FLTrust's server has examples of its own, so beside the tables stands the
control: what those examples alone would teach.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from harness import Figure, Options, progress
from rich.console import Console
from rich.table import Table

RECIPES = Path(__file__).resolve().parent.parent / "recipes"
DEVICES, SAMPLES, ROUNDS = 30, 80, 12
RECOMMENDED, PLAIN = "fltrust", "fedavg"
SPLITS = {"IID": "key", "Dirichlet 0.5": "dirichlet:0.5"}
SHARES = (0.1, 0.2, 0.4)
# Not 0 to 2: the rules' defaults were chosen with those.
SEEDS = (3, 4, 5)
NOBODY = "none"
# Many times what a device does in all rounds together: the control must not lose for want of steps.
ROOT_EPOCHS = 200
# What admission refuses outright (ten times as long as the others, NaN, infinity), what hides within its limit of five
# times, and what does not stand out at all.
ATTACKS = (
    "sign_flip:10",
    "sign_flip:4",
    "label_flip",
    "gaussian:3",
    "alie:1.5",
    "ipm:0.5",
    "backdoor",
    "model_replacement:10",
    "model_replacement:4",
    "nan",
    "inf",
    "free_rider",
)
# Where a rule's own defaults do not fit thirty devices, steps of SGD or twelve rounds.
OPTIONS: Mapping[str, Mapping[str, float]] = {
    "bulyan": {"num_malicious_nodes": 6},
    "fedadagrad": {"eta": 0.1},
    "fedtrimmedavg": {"beta": 0.4},
    "krum": {"num_malicious_nodes": 12},
    "multikrum": {"num_malicious_nodes": 12, "num_nodes_to_select": 12},
    "scaffold": {"learning_rate": 0.4},
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the table."""

    rule: str
    split: str
    attack: str
    share: float


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One run: accuracy on the unseen and the backdoor's success, in percent; rounds that came to nothing."""

    accuracy: float
    success: float | None
    abandoned: int


# By cell, an outcome for each seed.
Results = Mapping[Cell, Sequence[Outcome]]


def measure(options: Options) -> list[Figure]:
    """Print every cell; a figure for each target of the recommended rule."""
    from fogline_server.training.strategies import base

    rules = (PLAIN, RECOMMENDED, "nearest_neighbour_mixing") if options.quick else base.names()
    attacks = ("sign_flip:4", "alie:1.5", "backdoor") if options.quick else ATTACKS
    seeds = SEEDS[:1] if options.quick else SEEDS
    cells = [
        Cell(rule=rule, split=split, attack=attack, share=share)
        for rule, split in product(rules, SPLITS)
        for attack, share in ((NOBODY, 0.0), *product(attacks, SHARES))
    ]
    results = _run(cells, seeds)
    for split in SPLITS:
        _show(split, rules, attacks, results)
    alone = [_root_alone(seed) for seed in seeds]
    print(f"Control: trained on the server's own examples alone, {ROOT_EPOCHS} epochs: {_spread(alone)} %")
    return _figures(results, alone)


def _run(cells: Sequence[Cell], seeds: Sequence[int]) -> Results:
    jobs = list(product(cells, seeds))
    outcomes = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context, initializer=_start) as pool:
        for outcome in pool.map(_outcome, *zip(*jobs, strict=True), chunksize=4):
            outcomes.append(outcome)
            if len(outcomes) % 100 == 0:
                progress(f"{len(outcomes)} of {len(jobs)} runs")
    return {cell: outcomes[i * len(seeds) : (i + 1) * len(seeds)] for i, cell in enumerate(cells)}


def _start() -> None:
    import flwr  # noqa: F401 - sets its logger's level

    sys.path.insert(0, str(RECIPES))
    logging.getLogger("flwr").setLevel(logging.ERROR)


def _outcome(cell: Cell, seed: int) -> Outcome:
    from fogline_server.simulation.engine import simulate
    from fogline_server.simulation.spec import SimulationSpec
    from fogline_server.training.spec import RunSpec
    from fogline_shared.recipe import load_recipe

    recipe = load_recipe("digits")
    run = RunSpec(
        recipe="digits",
        rounds=ROUNDS,
        strategy=cell.rule,
        strategy_options=OPTIONS.get(cell.rule, {}),
        seed=seed,
        quorum=0.5,
    )
    spec = SimulationSpec(
        run=run.resolved(recipe),
        keys=list(recipe.fleet()),
        devices=DEVICES,
        split=SPLITS[cell.split],
        samples=SAMPLES,
        attack=None if cell.attack == NOBODY else cell.attack,
        attackers=cell.share,
    )
    told = simulate(recipe, spec, processes=1, on_progress=lambda *_: None)
    success = told["backdoor_success"]
    return Outcome(
        accuracy=100 * told["unseen"]["accuracy"],
        success=None if success is None else 100 * success,
        abandoned=told["abandoned"],
    )


def _root_alone(seed: int) -> float:
    """Accuracy on the unseen, in percent, of a student that was trained on the recipe's root data and nothing else."""
    _start()
    from fogline_shared.recipe import load_recipe

    recipe = load_recipe("digits")
    root, unseen = recipe.root(), recipe.unseen()
    assert root is not None
    assert unseen is not None
    standardisation = recipe.channel_sums(root).standardisation()
    model = recipe.model("student", seed=seed)
    recipe.train(model, root, standardisation, replace(recipe.plans["student"], epochs=ROOT_EPOCHS, seed=seed))
    return 100 * recipe.evaluate(model, unseen, standardisation).accuracy


def _show(split: str, rules: Sequence[str], attacks: Sequence[str], results: Results) -> None:
    """One table a split: a row for each attack and share, a column for each rule; with backdoors, their success behind a bar."""
    table = Table("attack", "share", *rules, title=f"Accuracy in percent, {split}: mean ± sd | backdoor's success")
    for attack, share in ((NOBODY, 0.0), *product(attacks, SHARES)):
        cells = [Cell(rule=rule, split=split, attack=attack, share=share) for rule in rules]
        table.add_row(attack, f"{share:.0%}", *(_text(results[cell]) for cell in cells))
    Console(width=30 + 24 * len(rules)).print(table)


def _text(outcomes: Sequence[Outcome]) -> str:
    text = _spread([outcome.accuracy for outcome in outcomes])
    successes = [outcome.success for outcome in outcomes if outcome.success is not None]
    abandoned = sum(outcome.abandoned for outcome in outcomes)
    text += f" | {_spread(successes)}" if successes else ""
    return text + (f" ({abandoned} rounds lost)" if abandoned else "")


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) if len(values) > 1 else 0.0:.1f}"


def _figures(results: Results, alone: Sequence[float]) -> list[Figure]:
    cells: list[dict[str, Any]] = [
        {**vars(cell), "accuracy": [o.accuracy for o in outcomes], "success": [o.success for o in outcomes]}
        for cell, outcomes in results.items()
    ]
    figures = [
        _worst_drop(results, "IID", 0.2, 2.0),
        _worst_drop(results, "Dirichlet 0.5", 0.2, 5.0),
        _worst_drop(results, "IID", 0.4, 3.0),
        _worst_success(results, 0.2, 5.0),
    ]
    figures[0].detail["every_cell"] = cells
    figures[0].detail["root_data_alone"] = alone
    return figures


def _worst_drop(results: Results, split: str, share: float, limit: float) -> Figure:
    def drops(cell: Cell) -> list[float]:
        plain = results[Cell(rule=PLAIN, split=split, attack=NOBODY, share=0.0)]
        return [p.accuracy - o.accuracy for p, o in zip(plain, results[cell], strict=True)]

    attacked = [c for c in results if (c.rule, c.split, c.share) == (RECOMMENDED, split, share)]
    worst = max(attacked, key=lambda cell: statistics.mean(drops(cell)))
    return Figure(
        name=f"{RECOMMENDED}: worst drop, {split}, {share:.0%} attack ({worst.attack})",
        unit="points",
        ours=statistics.mean(drops(worst)),
        spread=statistics.stdev(drops(worst)) if len(results[worst]) > 1 else 0.0,
        peer=limit,
        peer_name="limit",
        target=1.0,
        detail={"drops_by_seed": {cell.attack: drops(cell) for cell in attacked}},
    )


def _worst_success(results: Results, share: float, limit: float) -> Figure:
    successes = {
        cell: [outcome.success for outcome in outcomes if outcome.success is not None]
        for cell, outcomes in results.items()
        if (cell.rule, cell.share) == (RECOMMENDED, share)
    }
    worst = max((cell for cell in successes if successes[cell]), key=lambda cell: statistics.mean(successes[cell]))
    return Figure(
        name=f"{RECOMMENDED}: worst backdoor, {share:.0%} attack ({worst.attack}, {worst.split})",
        unit="%",
        ours=statistics.mean(successes[worst]),
        spread=statistics.stdev(successes[worst]) if len(successes[worst]) > 1 else 0.0,
        peer=limit,
        peer_name="limit",
        target=1.0,
    )
