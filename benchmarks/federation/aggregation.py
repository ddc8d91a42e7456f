"""From fifty devices' blobs to new weights: seconds and memory of our rules beside Flower's own of the same names.

Each measurement is a process of its own, on the same files: safetensors blobs as devices upload them. Ours reads them as a
round does. Flower's strategies get what Flower gives them: every reply's arrays in memory. Memory is the most that was
resident while it aggregated, beyond what the process had before.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve()
DEVICES, FLOATS, TENSORS = 50, 5_000_000, 10
QUICK = (7, 200_000)
# name: options, largest share of Flower's seconds (0: not a target), of its memory.
RULES = {
    "fedavg": ({}, 1 / 2, 1 / 12),
    "fedmedian": ({}, 0.0, 1 / 3),
    "fedtrimmedavg": ({"beta": 0.2}, 0.0, 1 / 3),
    "krum": ({"num_malicious_nodes": 1}, 0.0, 1 / 3),
    "multikrum": ({"num_malicious_nodes": 1, "num_nodes_to_select": 4}, 0.0, 1 / 3),
    "bulyan": ({"num_malicious_nodes": 1}, 0.0, 1 / 3),
}
FLOWERS = {
    "fedavg": "FedAvg",
    "fedmedian": "FedMedian",
    "fedtrimmedavg": "FedTrimmedAvg",
    "krum": "Krum",
    "multikrum": "MultiKrum",
    "bulyan": "Bulyan",
}
MB = 2**20


def measure(options) -> list:
    """Time and memory of FedAvg; memory of the robust rules."""
    from harness import Figure, progress

    devices, floats = QUICK if options.quick else (DEVICES, FLOATS)
    figures = []
    with tempfile.TemporaryDirectory(prefix="fogline-bench-") as folder:
        _child("write", folder, devices, floats)
        for rule, (_, share_s, share_mb) in RULES.items():
            ours, peer = _child("ours", folder, rule), _child("flower", folder, rule)
            detail = {"ours": ours, "peer": peer}
            progress(f"{rule}: {ours} beside Flower's {peer}")
            name = f"aggregation of {devices} x {floats / 1e6:g}M floats, {rule}"
            if share_s:
                seconds = {"ours": ours["seconds"], "peer": peer["seconds"]}
                figures.append(
                    Figure(name=name, unit="s", peer_name="Flower", target=share_s, detail=detail, **seconds)
                )
            memory = {"ours": ours["peak_mb"], "peer": peer["peak_mb"]}
            figures.append(
                Figure(name=f"{name}, memory", unit="MB", peer_name="Flower", target=share_mb, detail=detail, **memory)
            )
    return figures


def _child(*words: object) -> dict:
    done = subprocess.run([sys.executable, HERE, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def write(folder: Path, devices: int, floats: int) -> dict:
    """A reference and the devices' blobs, each moved a little from it."""
    from fogline_shared import tensors

    rng = np.random.default_rng(0)
    reference = {f"w{i}": rng.normal(size=floats // TENSORS).astype(np.float32) for i in range(TENSORS)}
    for name in ("reference", *(f"{i:03}" for i in range(devices))):
        moved = 0.0 if name == "reference" else 0.01
        arrays = {
            key: old + rng.standard_normal(old.size, np.float32) * np.float32(moved) for key, old in reference.items()
        }
        with (folder / f"{name}.blob").open("wb") as file:
            file.writelines(tensors.encode(arrays))
    return {}


def ours(folder: Path, rule: str) -> dict:
    """As a round does it: arrays are read when the rule asks for them."""
    from fogline_server.training.strategies import base
    from fogline_shared import flower
    from fogline_shared.recipe import load_recipe

    strategy = base.load(rule, RULES[rule][0]).build(load_recipe("smartwatch"))
    reference = flower.arrays_of(flower.read_arrays(folder / "reference.blob"))
    return _aggregated(folder, strategy, reference, flower.read_arrays)


def flowers(folder: Path, rule: str) -> dict:
    """As Flower does it: the replies are in memory, in its own form."""
    from flwr.app import Array, ArrayRecord
    from flwr.serverapp import strategy as strategies

    from fogline_server.training.strategies.base import EVERY_NODE
    from fogline_shared import tensors

    strategy = getattr(strategies, FLOWERS[rule])(**EVERY_NODE, **RULES[rule][0])

    def read(path: Path) -> ArrayRecord:
        return ArrayRecord({name: Array(array) for name, array in tensors.decode(path.read_bytes()).items()})

    return _aggregated(folder, strategy, {}, read)


def _aggregated(folder: Path, strategy, reference, read) -> dict:
    from flwr.app import MetricRecord, RecordDict

    from fogline_shared import flower
    from fogline_shared.flower import Address

    strategy.reference = reference  # what configure_train keeps; Flower's own do not look at it
    before, started = _resident("VmRSS"), time.perf_counter()
    replies = []
    for node, path in enumerate(sorted(folder.glob("[0-9]*.blob"))):
        content = RecordDict({"arrays": read(path), "metrics": MetricRecord({"num-examples": 10 + node, "loss": 1.0})})
        address = Address(message_id=str(node), node_id=node, group_id="1", message_type="train")
        replies.append(flower.reply(content, address))
    arrays, _ = strategy.aggregate_train(1, replies)
    new = flower.arrays_of(arrays)
    seconds = time.perf_counter() - started
    assert all(np.isfinite(array).all() for array in new.values())
    return {"seconds": seconds, "peak_mb": (_resident("VmHWM") - before) / MB}


def _resident(line: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{line}:")[1].split()[0]) * 1024


if __name__ == "__main__":
    what, where, *rest = sys.argv[1:]
    if what == "write":
        said = write(Path(where), *map(int, rest))
    else:
        said = {"ours": ours, "flower": flowers}[what](Path(where), *rest)
    print(json.dumps(said))
