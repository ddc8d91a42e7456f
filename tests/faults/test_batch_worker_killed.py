"""Workers killed with SIGKILL while they score: every row comes out exactly once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parts import die_with_us
from tiny_recipe import signals
from tiny_release import places_of, ready_release

from fogline_server.batch.model import BatchSpec
from fogline_server.batch.service import shards_of, submit_batch
from fogline_server.blobs.store import BlobStore
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.jobs import service as jobs
from fogline_server.jobs.tables import Job

SUPPORT = Path(__file__).parents[1] / "support"
ROWS, SHARD_ROWS, KILLS = 30_000, 1500, 5


@pytest.fixture
def workers(sqlite_url: str, tmp_path: Path):
    started: list[subprocess.Popen] = []

    def start() -> subprocess.Popen:
        command = [sys.executable, str(SUPPORT / "batch_worker.py"), sqlite_url, str(tmp_path / "blobs")]
        worker = subprocess.Popen(
            command,
            env={**os.environ, "PYTHONPATH": str(SUPPORT)},
            preexec_fn=die_with_us,  # noqa: PLW1509 - async-signal-safe call only
            stdout=subprocess.DEVNULL,
        )
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.kill()
        worker.wait()


def test_every_row_comes_out_once_though_workers_are_killed(
    sqlite_database: Database, blobs: BlobStore, tmp_path: Path, workers
) -> None:
    release = ready_release(sqlite_database, blobs)
    x = np.tile(signals(3, 1000).x.reshape(1000, -1), (ROWS // 1000, 1))
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    column = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
    pq.write_table(pa.table({"input": column, "key": np.arange(ROWS) * 7}), source, row_group_size=4000)
    spec = BatchSpec(
        release_id=release.id,
        input=str(source),
        output=str(output),
        id_column="key",
        shard_rows=SHARD_ROWS,
        batch_size=1,  # slow on purpose: work to be killed in
    )
    with sqlite_database.transaction() as session:
        job = submit_batch(session, spec, places=places_of(blobs), now=utc_now(), actor="test")
        job.max_attempts = 20  # each kill may hit the worker that holds the parent
        job_id = job.id

    def finished() -> int:
        with sqlite_database.read() as session:
            return sum(s.output_digest is not None for s in shards_of(session, job_id))

    fleet = [workers(), workers()]
    end = time.monotonic() + 90
    for kill in range(KILLS):
        while finished() < 2 * kill + 1 and time.monotonic() < end:
            time.sleep(0.01)
        victim = fleet[kill % 2]
        victim.kill()
        victim.wait()
        fleet[kill % 2] = workers()
    assert finished() < ROWS // SHARD_ROWS, "the kills came too late to mean anything"
    state = "RUNNING"
    while state in {"QUEUED", "RUNNING"} and time.monotonic() < end:
        time.sleep(0.05)
        with sqlite_database.read() as session:
            state = session.get_one(Job, job_id).state
    with sqlite_database.read() as session:
        assert state == "SUCCEEDED", session.get_one(Job, job_id).error
        assert {c.state for c in jobs.list_jobs(session, parent_id=job_id, limit=100)} == {"SUCCEEDED"}
    table = pq.read_table(output)
    assert np.array_equal(table["row_index"].to_numpy(), np.arange(ROWS))
    assert np.array_equal(table["key"].to_numpy(), np.arange(ROWS) * 7)
    assert table["label"].null_count == 0
    assert sorted(p.name for p in tmp_path.glob("*parquet*")) == ["in.parquet", "out.parquet"]
