"""Rounds over devices of which a share never answers: how many commit, what is wasted, how long they take in virtual time.

The smartwatch student over 500 virtual devices, rounds for 20 answers with a quorum of 80 %, three seeds. What tunes itself is
compared with the usual 30 % of over-selection and a fixed deadline; a round is tried again up to thirty times by both, statistics included.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor

from harness import Figure, Options, progress

DROPOUTS = (0.1, 0.3, 0.5)
SEEDS = (0, 1, 2)
ROUNDS, TARGET, RETRIES = 30, 20, 30
DEVICES, SAMPLES = 500, 8


def measure(options: Options) -> list[Figure]:
    """Four figures for each dropout."""
    seeds, rounds = (SEEDS[:1], 3) if options.quick else (SEEDS, ROUNDS)
    cases = [(dropout, kind, seed, rounds) for dropout in DROPOUTS for kind in ("tuned", "fixed") for seed in seeds]
    context = multiprocessing.get_context("spawn")
    results = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        for (dropout, kind, seed, _), found in zip(cases, pool.map(_run, *zip(*cases, strict=True)), strict=True):
            progress(f"dropout {dropout:.0%}, {kind}, seed {seed}: {found}")
            results.setdefault((dropout, kind), []).append(found)
    return [figure for dropout in DROPOUTS for figure in _figures(dropout, results)]


def _figures(dropout: float, results: dict) -> list[Figure]:
    def mean(name: str, kind: str = "tuned") -> float:
        return statistics.mean(found[name] for found in results[dropout, kind])

    detail = {"tuned": results[dropout, "tuned"], "fixed": results[dropout, "fixed"]}
    named = f"dropout {dropout:.0%}:"
    return [
        Figure(
            name=f"{named} rounds committed",
            unit="%",
            ours=mean("committed"),
            peer=100.0,
            peer_name="all",
            target=1.0 if dropout <= 0.3 else 0.99,
            higher_is_better=True,
            detail=detail,
        ),
        Figure(
            name=f"{named} attempts that committed",
            unit="%",
            ours=mean("at_once"),
            peer=max(mean("at_once", "fixed"), 1e-9),
            peer_name="fixed",
            target=1.0,
            higher_is_better=True,
        ),
        Figure(
            name=f"{named} virtual time a committed round",
            unit="s",
            ours=mean("round_s"),
            peer=mean("round_s", "fixed"),
            peer_name="fixed",
            target=1.0,
        ),
        Figure(
            name=f"{named} device time wasted",
            unit="%",
            ours=mean("wasted"),
            peer=max(mean("wasted", "fixed"), 1e-9),
            peer_name="fixed",
            target=1.0,
        ),
    ]


def _run(dropout: float, kind: str, seed: int, rounds: int) -> dict[str, float]:
    """Percent of the rounds, and of the attempts, that committed; percent of device time wasted; virtual seconds a round."""
    import torch

    from fogline_recipes.smartwatch import Smartwatch
    from fogline_server.simulation.engine import simulate
    from fogline_server.simulation.spec import SimulationSpec, keys_of
    from fogline_server.training.pacing import Pacing
    from fogline_server.training.spec import RunSpec

    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    recipe = Smartwatch()
    run = RunSpec(
        recipe=recipe.name,
        rounds=rounds,
        seed=seed,
        plan={"epochs": 1},
        round_deadline_s=60.0,
        pacing=Pacing(target=TARGET, over_selection=0.3, self_tuning=kind == "tuned", retries=RETRIES),
    ).resolved(recipe)
    fleet = {"devices": DEVICES, "cohort": TARGET, "samples": SAMPLES, "split": "dirichlet:0.5", "dropout": dropout}
    # A device takes some seconds for its few examples; the spread makes a few of them slow.
    spec = SimulationSpec(run=run, keys=keys_of(recipe, {}), speed=1.0, spread=0.5, **fleet)
    facts = simulate(recipe, spec, processes=1, on_progress=lambda *_: None)
    return {
        "committed": 100 * facts["committed"] / rounds,
        "at_once": 100 * facts["committed"] / (rounds + facts["retried"]),
        "wasted": 100 * facts["wasted_share"],
        "round_s": (facts["virtual_s"] - facts["rounds"][1]["began_s"]) / max(1, facts["committed"]),
    }
