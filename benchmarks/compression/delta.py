"""Bytes of an update by delta, beside the whole artifact at zstd's level 19, and what applying one costs a device.

The smartwatch student after one more federated round, three seeds: the last round of the recipe's run, one in its middle, and
one by which a finished run was extended, whose learning rate starts from the top again. Applying is measured in a process that
imports what a device does, on these artifacts and on one of 16 MB, where memory that grew with the file would show.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import statistics
from concurrent.futures import ProcessPoolExecutor

from harness import Figure, Options, progress

SEEDS = (0, 1, 2)
# The most that a delta may have of the artifact at zstd 19.
TARGET = 1 / 6
# Of applying beside copying and hashing the same bytes; and of memory beyond what the process has, MB.
TIMES, PEAK = 10.0, 8.0
LARGE = 16_000_000
# Which round's delta is measured, of a run of so many that was extended by one.
ROUNDS = {
    "last round": lambda rounds: rounds,
    "a round in the middle": lambda rounds: rounds // 2,
    "a round of an extension": lambda rounds: rounds + 1,
}


def measure(options: Options) -> list[Figure]:
    """A figure of bytes for each round and form, then time and memory."""
    seeds, rounds = (SEEDS[:1], 4) if options.quick else (SEEDS, None)
    context = multiprocessing.get_context("spawn")
    results = []
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=context) as pool:
        for seed, found in zip(seeds, pool.map(_run, seeds, [rounds] * len(seeds)), strict=True):
            progress(
                f"seed {seed}: " + "; ".join(f"{k} {v['delta_bytes']} of {v['zstd_bytes']}" for k, v in found.items())
            )
            results.append(found)
    figures = [_bytes(name, results, target) for name, target in _targets()]
    small = [found["student_int8, last round"] for found in results]
    figures += _cost("int8 student", small)
    for kind in ("int8", "float32"):
        figures += _cost(f"{LARGE // 1_000_000} MB of {kind}", [_large(kind, LARGE // (16 if options.quick else 1))])
    return figures


def _targets() -> list[tuple[str, float]]:
    """What is compared, and the share allowed. The float's low bits are noise of training: it need only be smaller."""
    named = [(f"student_int8, {moment}", TARGET) for moment in ROUNDS]
    return [*named, ("student_fp32, last round", 1.0)]


def _bytes(name: str, results: list[dict], target: float) -> Figure:
    return Figure(
        name=f"{name}: delta",
        unit="bytes",
        ours=statistics.mean(found[name]["delta_bytes"] for found in results),
        spread=statistics.stdev(found[name]["delta_bytes"] for found in results) if len(results) > 1 else 0.0,
        peer=statistics.mean(found[name]["zstd_bytes"] for found in results),
        peer_name="whole, zstd 19",
        target=target,
        detail={"by_seed": [found[name] for found in results]},
    )


def _cost(name: str, measured: list[dict]) -> list[Figure]:
    return [
        Figure(
            name=f"{name}: time to apply",
            unit="ms",
            ours=1e3 * statistics.mean(each["apply_s"] for each in measured),
            peer=1e3 * statistics.mean(each["copy_s"] for each in measured),
            peer_name="copy and hash",
            target=TIMES,
            detail={"measured": measured},
        ),
        Figure(
            name=f"{name}: memory to apply",
            unit="MB",
            ours=max(each["peak_bytes"] for each in measured) / 1e6,
            peer=PEAK,
            peer_name="limit",
            target=1.0,
        ),
    ]


def _run(seed: int, rounds: int | None) -> dict[str, dict]:
    """What was measured of each form and round, by name."""
    from fogline_recipes.smartwatch import Smartwatch
    from fogline_server.registry.deltas.measure import measure

    logging.getLogger("flwr").setLevel(logging.WARNING)
    recipe = Smartwatch()
    rounds = rounds or recipe.rounds["student"]
    trained, statistics_ = _trained(recipe, seed, rounds)
    measured = {}
    for moment, chosen in ROUNDS.items():
        number = chosen(rounds)
        before, after = (_artifacts(recipe, trained[n], statistics_) for n in (number - 1, number))
        for variant in ("student_int8", "student_fp32"):
            measured[f"{variant}, {moment}"] = measure(before[variant], after[variant]).as_json()
    return measured


def _trained(recipe, seed: int, rounds: int) -> tuple[list[dict], object]:
    """The student's arrays after each round of a run that was extended by one, the untrained ones first; its statistics."""
    import torch

    from fogline_client.training.app import build_app
    from fogline_server.training import whole_run
    from fogline_server.training.in_process import InProcessGrid
    from fogline_server.training.spec import RunSpec
    from fogline_shared import flower

    torch.set_num_threads(1)
    seen = []

    class Watched(InProcessGrid):
        """Keeps what each round starts from."""

        def push_messages(self, messages):
            messages = list(messages)
            if messages[0].metadata.message_type == "train":
                arrays = flower.arrays_of(messages[0].content.array_records["arrays"])
                seen.append({name: array.copy() for name, array in arrays.items()})
            return super().push_messages(messages)

    spec = RunSpec(recipe=recipe.name, min_devices=1, seed=seed, rounds=rounds, extensions=(1,)).resolved(recipe)
    grid = Watched({node: (build_app(recipe), {"person": str(node)}) for node in recipe.training_people})
    run = whole_run.train(grid, recipe, spec)
    return [*seen, flower.arrays_of(run.arrays)], run.statistics


def _artifacts(recipe, arrays: dict, statistics_) -> dict[str, bytes]:
    from fogline_server.registry.build import Source, build_artifacts
    from fogline_shared import tensors

    params = b"".join(bytes(part) for part in tensors.encode(arrays))
    source = Source(params=params, standardisation=statistics_.standardisation)
    return dict(build_artifacts(recipe, {"student": source}).artifacts)


def _large(kind: str, size: int) -> dict:
    """An artifact of one tensor of ``size`` bytes that moved a little everywhere."""
    import numpy as np
    from onnx import helper, numpy_helper

    from fogline_server.registry.deltas.measure import measure

    rng = np.random.default_rng(0)
    if kind == "int8":
        before = rng.integers(-64, 64, size).astype(np.int8)
        after = before + (rng.random(size) < 0.1).astype(np.int8)
    else:
        before = rng.standard_normal(size // 4).astype(np.float32)
        after = (before * (1 + 1e-3 * rng.standard_normal(size // 4))).astype(np.float32)
    files = []
    for values in (before, after):
        graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(values, "w")])
        files.append(helper.make_model(graph, ir_version=8).SerializeToString())
    measured = measure(*files).as_json()
    progress(f"{size} bytes of {kind}: {measured}")
    return measured
