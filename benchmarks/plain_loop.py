"""What somebody would write without Fogline: read Parquet, run the model, write Parquet. Prints its seconds as JSON.

It runs three times and the best counts: a worker is warm when a job comes, so the peer must be (cold, it takes a fifth
longer).
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq

from fogline_shared.manifest import METADATA_KEY, Manifest

# Reads of 1,024 to 16,384 rows and runs of 64 to 1,024 examples took the same time within its noise.
READ, BATCH = 4096, 256


def score(model: str, source: str, target: str) -> float:
    """One pass; returns its seconds."""
    started = time.perf_counter()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    manifest = Manifest.from_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    names, labels, scores = np.array(manifest.classes, dtype=object), [], []
    for read in pq.ParquetFile(source).iter_batches(READ, columns=["input"]):
        values = read["input"].flatten().to_numpy(zero_copy_only=False).reshape(-1, *manifest.input_shape)
        for start in range(0, len(values), BATCH):
            logits = session.run(None, {manifest.input_name: values[start : start + BATCH]})[0]
            best = logits.argmax(axis=1)
            confidence = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
            labels.append(names[best])
            scores.append(confidence.astype(np.float32))
    label = np.concatenate(labels)
    columns = {"row_index": np.arange(len(label)), "label": label, "score": np.concatenate(scores)}
    pq.write_table(pa.table({name: pa.array(column) for name, column in columns.items()}), target)
    return time.perf_counter() - started


if __name__ == "__main__":
    print(json.dumps({"seconds": min(score(*sys.argv[1:]) for _ in range(3))}))
