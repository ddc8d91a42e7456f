"""What somebody would write without Fogline: read Parquet, run the model, write Parquet. Prints its seconds as JSON."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnxruntime as ort
import pyarrow as pa
import pyarrow.parquet as pq

from fogline_shared.manifest import METADATA_KEY, Manifest

BATCH = 256


def main(model: str, source: str, target: str) -> None:
    started = time.perf_counter()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    manifest = Manifest.from_json(session.get_modelmeta().custom_metadata_map[METADATA_KEY])
    schema = pa.schema([("row_index", pa.int64()), ("label", pa.string()), ("score", pa.float32())])
    names, position = np.array(manifest.classes, dtype=object), 0
    with pq.ParquetWriter(target, schema) as writer:
        for batch in pq.ParquetFile(source).iter_batches(BATCH, columns=["input"]):
            x = batch["input"].flatten().to_numpy(zero_copy_only=False).reshape(-1, *manifest.input_shape)
            logits = session.run(None, {manifest.input_name: x})[0]
            best = logits.argmax(axis=1)
            score = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
            columns = [np.arange(position, position + len(x)), names[best], score.astype(np.float32)]
            writer.write_table(pa.table([pa.array(column) for column in columns], schema=schema))
            position += len(x)
    print(json.dumps({"seconds": time.perf_counter() - started, "rows": position}))


if __name__ == "__main__":
    main(*sys.argv[1:])
