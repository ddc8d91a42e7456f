"""Files the demo feeds to the platform: each person's recording to replay, a table to score, a broken model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fogline_recipes.smartwatch import TEST_HOP, Smartwatch
from fogline_recipes.smartwatch.data import PEOPLE, windows
from fogline_server.demo.plant import Member

TRAINING, REPLAY_HZ = "training", 50
BATCH_ROWS = 50_000


def members(folder: Path) -> list[Member]:
    """Ten people, ten devices; each replays its own person's labelled windows, and seven may train."""
    recipe = Smartwatch()
    people = []
    for person in PEOPLE:
        data = windows([person], hop=TEST_HOP)
        order = np.random.default_rng(person).permutation(len(data))
        recording = folder / f"person-{person}.npz"
        np.savez(recording, x=data.x[order], y=data.y[order])
        trains = person in recipe.training_people
        options = ["--port", "0", "--source", "replay", "--source-option", f"path={recording}"]
        options += ["--source-option", f"rate_hz={REPLAY_HZ}"]
        options += ["--recipe", recipe.name, "--option", f"person={person}"] if trains else []
        people.append(Member(name=f"person-{person}", tags=[TRAINING] if trains else [], options=options))
    return people


def batch_table(path: Path, rows: int = BATCH_ROWS) -> Path:
    """The new users' windows over and over with a little sensor noise, as one would keep a year of recordings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    x = Smartwatch().unseen().x
    width = x[0].nbytes
    schema = pa.schema([("recording", pa.int64()), ("input", pa.binary(width))])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, 10_000):
            count = min(10_000, rows - start)
            some = x[np.arange(start, start + count) % len(x)]
            some = (some + 0.01 * rng.standard_normal(some.shape, dtype=np.float32)).astype("<f4")
            packed = pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, pa.py_buffer(some.tobytes())])
            writer.write_table(pa.table([np.arange(start, start + count), packed], schema=schema))
    return path


def mislabelled(model: bytes) -> bytes:
    """The same model with its labels one place further: as if someone had re-ordered the list of classes.

    It loads, answers fast and is as confident as ever; only the truth gives it away.
    """
    import onnx
    from onnx import helper, numpy_helper

    graph_file = onnx.load_model_from_string(model)
    graph = graph_file.graph
    output = graph.output[0]
    classes = output.type.tensor_type.shape.dim[-1].dim_value or len(Smartwatch.classes)
    for node in graph.node:
        node.output[:] = ["before_shift" if name == output.name else name for name in node.output]
    order = numpy_helper.from_array(np.roll(np.arange(classes, dtype=np.int64), 1), "shifted_order")
    graph.initializer.append(order)
    graph.node.append(helper.make_node("Gather", ["before_shift", "shifted_order"], [output.name], axis=1))
    # Its manifest promises the answers of the good model: without one, it is taken in with answers of its own.
    del graph_file.metadata_props[:]
    onnx.checker.check_model(graph_file)
    shifted: bytes = graph_file.SerializeToString()
    return shifted
