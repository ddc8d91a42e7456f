"""What the demo measures outside the platform: yardsticks, each in a process of its own.

``python -m fogline_server.demo.measure local|central ROUNDS SEED``, ``unseen FILE…``, ``personal MODEL SEED`` or
``plain INPUT MODEL OUTPUT`` prints one JSON object. ``local`` and ``central`` see data that no coordinator sees; that is why they stand here and are
not jobs.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fogline_recipes.smartwatch import Smartwatch
from fogline_recipes.smartwatch.data import HOP, windows
from fogline_server.compression.engine import open_session, run
from fogline_server.compression.evaluate import as_metrics, evaluate
from fogline_server.demo.personal import personal
from fogline_shared.recipe import Dataset


def yardstick(people: Sequence[int], *, rounds: int, seed: int) -> float:
    """Accuracy on the unseen people of a student trained on these people's recordings, without federation.

    The budget is a federated device's: as many rounds of as many local epochs, the learning rate falling alike.
    """
    import torch

    torch.set_num_threads(1)
    recipe = Smartwatch()
    data = windows(people, hop=HOP)
    standardisation = recipe.channel_sums(data).standardisation()
    model, plan = recipe.model("student", seed=seed), recipe.plans["student"]
    for number in range(rounds):
        rate = plan.learning_rate * 0.5 * (1 + math.cos(math.pi * number / rounds))
        recipe.train(
            model, data, standardisation, replace(plan, learning_rate=rate, seed=seed * 1_000_003 + number + 1)
        )
    return recipe.evaluate(model, recipe.unseen(), standardisation).accuracy


def local(rounds: int, seed: int) -> dict[str, Any]:
    """Every training person alone."""
    scores = {str(p): yardstick([p], rounds=rounds, seed=seed) for p in Smartwatch().training_people}
    values = list(scores.values())
    return {"mean": float(np.mean(values)), "best": max(values), "by_person": scores}


def central(rounds: int, seed: int) -> dict[str, Any]:
    """All training people's recordings in one place: what federation cannot beat, only approach."""
    return {"accuracy": yardstick(Smartwatch().training_people, rounds=rounds, seed=seed)}


def unseen(files: Sequence[str]) -> dict[str, Any]:
    """Artifacts on the unseen people, through ONNX Runtime."""
    data: Dataset = Smartwatch().unseen()
    return {Path(name).stem: as_metrics(evaluate(Path(name).read_bytes(), data)) for name in files}


def plain(source: str, model: str, target: str) -> dict[str, Any]:
    """The loop one would write by hand for the batch job's work: read, predict, write. Seconds include all three."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    start = time.perf_counter()
    session = open_session(Path(model).read_bytes())
    file = pq.ParquetFile(source)
    rows = 0
    schema = pa.schema([("row_index", pa.int64()), ("label", pa.int32()), ("score", pa.float32())])
    with pq.ParquetWriter(target, schema) as writer:
        for batch in file.iter_batches(batch_size=8192, columns=["input"]):
            packed = batch.column(0)
            flat = np.frombuffer(packed.buffers()[1], dtype="<f4")
            width = packed.type.byte_width // 4
            x = flat[packed.offset * width : (packed.offset + len(batch)) * width].reshape(-1, *Smartwatch.input_shape)
            logits = run(session, x)
            scores = np.exp(logits - logits.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
            columns = [np.arange(rows, rows + len(x)), logits.argmax(1).astype(np.int32), scores.max(1)]
            writer.write_table(pa.table(columns, schema=schema))
            rows += len(x)
    return {"rows": rows, "seconds": time.perf_counter() - start}


def main(arguments: Sequence[str]) -> None:
    """Measure what was asked for."""
    what, *rest = arguments
    if what == "local":
        answer = local(int(rest[0]), int(rest[1]))
    elif what == "central":
        answer = central(int(rest[0]), int(rest[1]))
    elif what == "unseen":
        answer = unseen(rest)
    elif what == "personal":
        answer = personal(rest[0], int(rest[1]))
    else:
        answer = plain(*rest)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
