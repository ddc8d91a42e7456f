"""What update codecs cost and save: bytes of the devices' replies, and accuracy on the two people nobody trained on.

The installed smartwatch recipe, all of its training people, its own number of rounds, three seeds; each codec is compared with
plain updates of the same seed. Bytes are of the blobs as devices send them, names of arrays included.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor

from harness import Figure, Options, progress
from simulated_run import train

PLAIN = ("none", {})
# The codec, its options, and the largest share of the plain bytes that is allowed.
CODECS = (
    ("fp16", {}, 0.55),
    ("int8", {}, 0.3),
    ("topk", {"fraction": 0.1}, 0.1),
    ("eden", {"bits": 1}, 0.1),
    ("eden", {"bits": 2}, 0.1),
)
SEEDS = (0, 1, 2)
LIMIT_POINTS = 1.0


def measure(options: Options) -> list[Figure]:
    """Two figures a codec: bytes against plain ones, points of accuracy lost against the limit."""
    seeds = SEEDS[:1] if options.quick else SEEDS
    rounds = 2 if options.quick else None
    cases = [(name, chosen, seed, rounds) for name, chosen in (PLAIN, *(c[:2] for c in CODECS)) for seed in seeds]
    context = multiprocessing.get_context("spawn")
    results = {}
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        for (name, chosen, seed, _), result in zip(cases, pool.map(_run, *zip(*cases, strict=True)), strict=True):
            accuracy, sent, plain = result
            label = _label(name, chosen)
            progress(f"{label}, seed {seed}: {accuracy:.1f} %, {sent / 1e3:.0f} kB sent, plain {plain / 1e3:.0f} kB")
            results[label, seed] = result
    return [
        figure for name, chosen, share in CODECS for figure in _figures(_label(name, chosen), share, results, seeds)
    ]


def _label(name: str, chosen: dict) -> str:
    """The codec with its options, as a reader of the table would give them."""
    return " ".join([name, *(f"{option}={value}" for option, value in chosen.items())])


def _figures(label: str, share: float, results: dict, seeds: tuple[int, ...]) -> list[Figure]:
    accuracies = {seed: (results[_label(*PLAIN), seed][0], results[label, seed][0]) for seed in seeds}
    lost = [plain - coded for plain, coded in accuracies.values()]
    return [
        Figure(
            name=f"{label}: bytes of the replies",
            unit="kB",
            ours=statistics.mean(results[label, seed][1] for seed in seeds) / 1e3,
            peer=statistics.mean(results[label, seed][2] for seed in seeds) / 1e3,
            peer_name="plain",
            target=share,
        ),
        Figure(
            name=f"{label}: accuracy lost, unseen people",
            unit="points",
            ours=statistics.mean(lost),
            spread=statistics.stdev(lost) if len(lost) > 1 else 0.0,
            peer=LIMIT_POINTS,
            peer_name="limit",
            target=1.0,
            detail={"plain_and_coded_by_seed": accuracies},
        ),
    ]


def _run(name: str, options: dict, seed: int, rounds: int | None) -> tuple[float, int, int]:
    """Accuracy in percent, bytes sent, and bytes had they been plain."""
    import torch

    from fogline_recipes.smartwatch import Smartwatch

    torch.set_num_threads(1)
    logging.getLogger("flwr").setLevel(logging.WARNING)
    recipe = Smartwatch()
    result = train(recipe, recipe.training_people, seed=seed, rounds=rounds, codec=name, codec_options=options)
    return 100 * result.accuracy, result.bytes_sent, result.bytes_plain
