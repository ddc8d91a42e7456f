"""What a simulated fleet costs beyond training: a thousand smartwatches, ten rounds, beside the bare local loop.

The loop makes the same models and trains them for the same steps on the same data, and does nothing else: no messages, no
admission, no aggregation. It takes one round, and counts as often as there are rounds. Each measurement is a process of its
own that works in one process. Memory is compared with that of a fleet a tenth as large: the most that was resident.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve()
DEVICES, ROUNDS = 1000, 10
QUICK = (20, 2)
LARGEST_OVERHEAD, LARGEST_GROWTH = 1.15, 1.1


def measure(options) -> list:
    """CPU seconds beside the loop's, and peak memory beside a small fleet's."""
    from harness import Figure, progress

    devices, rounds = QUICK if options.quick else (DEVICES, ROUNDS)
    few = max(2, devices // 10)
    fleet, small = _child("fleet", devices, rounds), _child("fleet", few, 1)
    bare = _child("bare", devices, 1)
    for name, said in (("fleet", fleet), ("small fleet", small), ("bare loop", bare)):
        progress(f"{name}: {said['wall_s']:.1f} s, CPU {said['cpu_s']:.1f} s, peak {said['peak_mb']:.0f} MB")
    detail = {"fleet": fleet, "small_fleet": small, "bare_round": bare}
    what = f"simulation of {devices} smartwatches, {rounds} rounds"
    return [
        Figure(
            name=f"{what}, CPU",
            unit="s",
            ours=fleet["cpu_s"],
            peer=rounds * bare["cpu_s"],
            peer_name="bare loop",
            target=LARGEST_OVERHEAD,
            detail=detail,
        ),
        Figure(
            name=f"{what}, memory",
            unit="MB",
            ours=fleet["peak_mb"],
            peer=small["peak_mb"],
            peer_name=f"{few} devices",
            target=LARGEST_GROWTH,
        ),
    ]


def _child(*words: object) -> dict:
    done = subprocess.run([sys.executable, HERE, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def fleet(devices: int, rounds: int) -> Sequence[float]:
    """A run over that many virtual devices, all of them asked in each round. Returns its start: wall and CPU."""
    from fogline_server.simulation.engine import simulate
    from fogline_server.simulation.spec import SimulationSpec
    from fogline_server.training.spec import RunSpec
    from fogline_shared.recipe import load_recipe

    recipe = load_recipe("smartwatch")
    run = RunSpec(recipe="smartwatch", rounds=rounds, min_devices=devices, evaluate_every=0).resolved(recipe)
    spec = SimulationSpec(run=run, keys=recipe.fleet(), devices=devices, cohort=devices)
    start = _now()
    facts = simulate(recipe, spec, processes=1, on_progress=lambda _number, _facts: None)
    committed = [known["number"] for known in facts["rounds"] if known["state"] == "COMMITTED"]
    assert len(committed) >= rounds, facts["rounds"]
    return start


def bare(devices: int, rounds: int) -> Sequence[float]:
    """The same models and steps, one after the other. Returns its start: wall and CPU."""
    import torch

    from fogline_recipes import parameters
    from fogline_server.training.spec import RunSpec
    from fogline_shared.recipe import load_recipe

    torch.set_num_threads(1)
    recipe = load_recipe("smartwatch")
    spec = RunSpec(recipe="smartwatch", rounds=rounds).resolved(recipe)
    data = [recipe.device_data(options) for options in recipe.fleet()]
    sums = [recipe.channel_sums(own) for own in data]
    standardisation = sum(sums[1:], sums[0]).standardisation()
    weights = parameters.read(recipe.model(spec.size, seed=0))
    start = _now()  # the fleet loads its data once a run, not once a round
    for number in range(1, rounds + 1):
        plan = spec.train_plan(recipe, number)
        for device in range(devices):
            model = recipe.model(spec.size, seed=0)
            parameters.write(model, weights)
            recipe.train(model, data[device % len(data)], standardisation, plan)
    return start


def _now() -> tuple[float, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    what, *numbers = sys.argv[1:]
    wall, cpu = {"fleet": fleet, "bare": bare}[what](*map(int, numbers))
    wall_now, cpu_now = _now()
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps({"wall_s": wall_now - wall, "cpu_s": cpu_now - cpu, "peak_mb": sum(peaks) / 1024}))
