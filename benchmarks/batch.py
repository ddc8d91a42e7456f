"""A batch job through Celery against a plain loop over the same Parquet file, one worker process each."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fleet import fogline_up
from harness import Figure, Options, progress
from students import student_artifact

SHAPE = (6, 128)
GROUP_ROWS = 10_000
REPEATS = 3


def measure(options: Options) -> list[Figure]:
    """Wall time of 100,000 rows; the best of three jobs, and of the loop's passes in between."""
    rows = 5_000 if options.quick else 100_000
    artifact = student_artifact()
    with (
        tempfile.TemporaryDirectory(prefix="fogline-bench-") as name,
        fogline_up(worker_concurrency=1, data_allow=name) as cloud,
    ):
        folder = Path(name)
        model, table = folder / "model.onnx", folder / "input.parquet"
        model.write_bytes(artifact)
        write_input(table, rows)
        release = cloud.import_release("student", artifact)
        ours, plain = [], []
        for i in range(1 if options.quick else REPEATS):
            plain.append(_plain_loop(model, table, folder / f"plain-{i}.parquet"))
            out = folder / f"ours-{i}.parquet"
            job = cloud.post("/jobs", kind="batch", release=release, input=str(table), output=str(out))
            done = cloud.until_ended(f"/jobs/{job['id']}", "SUCCEEDED", timeout_s=900)
            ours.append((_time(done, "finished_at") - _time(done, "created_at")).total_seconds())
            progress(f"batch of {rows} rows: job {ours[-1]:.2f} s, plain loop {plain[-1]:.2f} s")
            _check_same(out, folder / f"plain-{i}.parquet")
    return [
        Figure(
            name=f"batch job, {rows:,} rows, one worker process",
            unit="s",
            ours=min(ours),
            peer=min(plain),
            peer_name="plain loop",
            target=1.5,
            detail={"ours": ours, "plain": plain, "rows_per_s": rows / min(ours)},
        )
    ]


def write_input(path: Path, rows: int) -> None:
    """``input``: fixed-size lists of float32, written in row groups so that it is never in memory whole."""
    width = int(np.prod(SHAPE))
    schema = pa.schema([("input", pa.list_(pa.float32(), width))])
    rng = np.random.default_rng(0)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, GROUP_ROWS):
            count = min(GROUP_ROWS, rows - start)
            values = pa.array(rng.normal(size=count * width).astype(np.float32))
            writer.write_table(pa.table([pa.FixedSizeListArray.from_arrays(values, width)], schema=schema))


def _time(view: dict[str, str], field: str) -> datetime:
    return datetime.fromisoformat(view[field])


def _plain_loop(model: Path, source: Path, target: Path) -> float:
    """A process of its own, as the job has one; its seconds do not count starting Python and importing."""
    command = [sys.executable, Path(__file__).with_name("plain_loop.py"), model, source, target]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(done.stdout)["seconds"])


def _check_same(ours: Path, plain: Path) -> None:
    """A faster wrong answer is not a figure."""
    mine, theirs = pq.read_table(ours, columns=["label"]), pq.read_table(plain, columns=["label"])
    if not mine["label"].equals(theirs["label"]):
        raise RuntimeError("the batch job and the plain loop disagree")
