"""Batch jobs on real Parquet files with a real artifact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_recipe import Tiny, signals
from tiny_release import engine_of, finished_run, ready_release, run_all

from fogline_server.batch.model import BatchSpec
from fogline_server.batch.places import Places
from fogline_server.batch.service import shards_of, submit_batch
from fogline_server.blobs.store import BlobStore
from fogline_server.compression.engine import open_session, run
from fogline_server.db.base import utc_now
from fogline_server.db.database import Database
from fogline_server.jobs import service as jobs
from fogline_server.jobs.tables import Job
from fogline_server.registry import service as registry
from fogline_server.registry.model import ReleaseSpec
from fogline_shared.errors import Conflict, InvalidInput, NotFound

ROWS = 1000


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    return signals(7, ROWS).x


def packed(x: np.ndarray) -> pa.Array:
    flat = x.reshape(len(x), -1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), flat.shape[1])


LAYOUTS = {
    "fixed_size_list": lambda x: {"input": packed(x)},
    "list": lambda x: {"input": pa.array(list(x.reshape(len(x), -1)), pa.list_(pa.float32()))},
    "list_of_doubles": lambda x: {"input": pa.array(list(x.reshape(len(x), -1)), pa.list_(pa.float64()))},
    "fixed_size_binary": lambda x: {"input": pa.array([r.tobytes() for r in x], pa.binary(6 * 32 * 4))},
    "binary": lambda x: {"input": pa.array([r.tobytes() for r in x], pa.binary())},
    "columns": lambda x: {f"v{i}": pa.array(c) for i, c in enumerate(x.reshape(len(x), -1).T)},
}


def write(path: Path, columns: dict[str, pa.Array], **options: object) -> str:
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def submit(db: Database, home: Path | None = None, **spec: object) -> str:
    places = Places.of(home or Path(str(spec["output"])).absolute().parent)
    with db.transaction() as session:
        return submit_batch(session, BatchSpec(**spec), places=places, now=utc_now(), actor="test").id


def job_of(db: Database, job_id: str) -> Job:
    with db.read() as session:
        return jobs.get_job(session, job_id)


def expected(db: Database, blobs: BlobStore, release_id: str, x: np.ndarray) -> list[str]:
    with db.read() as session:
        digest = registry.get_variant(session, release_id, "student_int8").digest
    return [Tiny.classes[i] for i in run(open_session(blobs.read(digest)), x).argmax(1)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_one_output_a_row(
    sqlite_database: Database, blobs: BlobStore, tmp_path: Path, x: np.ndarray, layout: str
) -> None:
    release = ready_release(sqlite_database, blobs)
    ids = pa.array([f"row-{i}" for i in range(ROWS)])
    source = write(tmp_path / "in.parquet", {"name": ids, **LAYOUTS[layout](x)}, row_group_size=300)
    output = tmp_path / "out.parquet"
    job_id = submit(
        sqlite_database,
        release_id=release.name,
        input=source,
        output=str(output),
        id_column="name",
        shard_rows=170,
        batch_size=64,
    )
    assert str(engine_of(sqlite_database, blobs).execute(job_id)) == "SUCCEEDED"
    table = pq.read_table(output)
    assert table.column_names == ["row_index", "label", "score", "name"]
    assert table["row_index"].to_pylist() == list(range(ROWS))
    assert table["name"].to_pylist() == ids.to_pylist()
    assert table["label"].to_pylist() == expected(sqlite_database, blobs, release.id, x)
    assert all(0.25 <= s <= 1 for s in table["score"].to_pylist())


def test_progress_result_and_shards_are_recorded(
    database: Database, blobs: BlobStore, tmp_path: Path, x: np.ndarray
) -> None:
    release = ready_release(database, blobs)
    source = write(tmp_path / "in.parquet", {"input": packed(x)})
    output = tmp_path / "out.parquet"
    job_id = submit(database, release_id=release.id, input=source, output=str(output), shard_rows=300)
    engine = engine_of(database, blobs)
    engine.execute(job_id)
    job = job_of(database, job_id)
    assert (job.state, job.done, job.total) == ("SUCCEEDED", ROWS, ROWS)
    assert {k: job.result[k] for k in ("rows", "shards", "rows_without_label", "output")} == {
        "rows": ROWS,
        "shards": 4,
        "rows_without_label": 0,
        "output": str(output),
    }
    with database.read() as session:
        assert [(s.first_row, s.rows) for s in shards_of(session, job_id)] == [
            (0, 300),
            (300, 300),
            (600, 300),
            (900, 100),
        ]
        children = jobs.list_jobs(session, parent_id=job_id)
    assert {(c.state, c.attempts) for c in children} == {("SUCCEEDED", 1)}
    run_all(engine)  # what Celery still delivers finds nothing to do
    assert not list(tmp_path.glob("*.part"))


def test_shards_that_other_workers_computed_are_only_merged(
    sqlite_database: Database, blobs: BlobStore, tmp_path: Path, x: np.ndarray
) -> None:
    release = ready_release(sqlite_database, blobs)
    source = write(tmp_path / "in.parquet", {"input": packed(x)})
    job_id = submit(
        sqlite_database, release_id=release.id, input=source, output=str(tmp_path / "out.parquet"), shard_rows=100
    )
    engine = engine_of(sqlite_database, blobs)
    engine.execute(job_id)
    with sqlite_database.transaction() as session:
        parent = session.get_one(Job, job_id)  # as if its worker had died just before the end
        parent.state, parent.finished_at = "QUEUED", None
    (tmp_path / "out.parquet").unlink()
    engine.execute(job_id)
    with sqlite_database.read() as session:
        assert {c.attempts for c in jobs.list_jobs(session, parent_id=job_id)} == {1}
    assert pq.read_metadata(tmp_path / "out.parquet").num_rows == ROWS


def test_an_empty_table_gives_an_empty_table(sqlite_database: Database, blobs: BlobStore, tmp_path: Path) -> None:
    release = ready_release(sqlite_database, blobs)
    source = write(tmp_path / "in.parquet", {"input": packed(signals(1, 4).x).slice(0, 0)})
    job_id = submit(sqlite_database, release_id=release.id, input=source, output=str(tmp_path / "out.parquet"))
    engine_of(sqlite_database, blobs).execute(job_id)
    assert job_of(sqlite_database, job_id).state == "SUCCEEDED"
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_a_row_that_the_model_cannot_answer_gets_null(
    sqlite_database: Database, blobs: BlobStore, tmp_path: Path, x: np.ndarray
) -> None:
    release = ready_release(sqlite_database, blobs)
    poisoned = x.copy()
    poisoned[5] = np.nan
    source = write(tmp_path / "in.parquet", {"input": packed(poisoned)})
    job_id = submit(
        sqlite_database,
        release_id=release.id,
        variant="student_fp32",
        input=source,
        output=str(tmp_path / "out.parquet"),
    )
    engine_of(sqlite_database, blobs).execute(job_id)
    assert job_of(sqlite_database, job_id).result["rows_without_label"] == 1
    table = pq.read_table(tmp_path / "out.parquet")
    assert (table["label"][5].as_py(), table["score"][5].as_py()) == (None, None)
    assert table["label"].null_count == 1


def short_row(x: np.ndarray) -> dict[str, pa.Array]:
    rows = [r.ravel() for r in x]
    rows[700] = rows[700][:-1]
    return {"input": pa.array(rows, pa.list_(pa.float32()))}


def null_row(x: np.ndarray) -> dict[str, pa.Array]:
    rows = [r.tobytes() for r in x]
    rows[700] = None
    return {"input": pa.array(rows)}


BAD = {
    "missing_column": lambda x: {"other": packed(x)},
    "wrong_width": lambda x: {"input": packed(x[:, :, :31])},
    "wrong_column_type": lambda x: {"input": pa.array(["text"] * len(x))},
    "wrong_width in row 700": short_row,
    "null_input in row 700": null_row,
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_fails_the_job_with_its_code_and_no_output(
    sqlite_database: Database, blobs: BlobStore, tmp_path: Path, x: np.ndarray, case: str
) -> None:
    release = ready_release(sqlite_database, blobs)
    source = write(tmp_path / "in.parquet", BAD[case](x))
    job_id = submit(
        sqlite_database, release_id=release.id, input=source, output=str(tmp_path / "out.parquet"), shard_rows=300
    )
    engine = engine_of(sqlite_database, blobs)
    engine.execute(job_id)
    engine.reconcile()
    job = job_of(sqlite_database, job_id)
    code, _, where = case.partition(" in ")
    assert (job.state, job.error["code"]) == ("FAILED", code)
    assert where in job.error["message"]
    assert sorted(p.name for p in tmp_path.glob("*parquet*")) == ["in.parquet"]
    with sqlite_database.read() as session:
        assert not [c for c in jobs.list_jobs(session, parent_id=job_id) if c.state in {"QUEUED", "RUNNING"}]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"input": "missing.parquet"}, "input_not_found"),
        ({"input": "text.parquet"}, "unreadable_input"),
        ({"output": "no/such/folder/out.parquet"}, "output_not_writable"),
        ({"output": "folder"}, "output_not_writable"),
        ({"input": "out-of-here.parquet"}, "path_not_allowed"),
        ({"output": "out-of-here.parquet"}, "path_not_allowed"),
        ({"id_column": "nobody"}, "missing_column"),
    ],
)
def test_files_that_cannot_be_used_fail_the_job(
    sqlite_database: Database,
    blobs: BlobStore,
    tmp_path: Path,
    x: np.ndarray,
    change: dict[str, str],
    code: str,
) -> None:
    release = ready_release(sqlite_database, blobs)
    write(tmp_path / "in.parquet", {"input": packed(x)})
    (tmp_path / "text.parquet").write_text("this is not Parquet")
    (tmp_path / "folder").mkdir()
    (tmp_path / "out-of-here.parquet").symlink_to("/etc/passwd")
    spec = {"release_id": release.id, "input": "in.parquet", "output": "out.parquet", **change}
    job_id = submit(sqlite_database, home=tmp_path, **spec)
    engine_of(sqlite_database, blobs).execute(job_id)
    job = job_of(sqlite_database, job_id)
    assert (job.state, job.error["code"]) == ("FAILED", code)


def test_an_input_that_changes_after_planning_fails_the_job(
    sqlite_database: Database, blobs: BlobStore, tmp_path: Path, x: np.ndarray
) -> None:
    release = ready_release(sqlite_database, blobs)
    source = write(tmp_path / "in.parquet", {"input": packed(x)})
    job_id = submit(
        sqlite_database, release_id=release.id, input=source, output=str(tmp_path / "out.parquet"), shard_rows=500
    )
    engine = engine_of(sqlite_database, blobs)
    engine.execute(job_id)
    with sqlite_database.transaction() as session:
        parent = session.get_one(Job, job_id)
        parent.state = "QUEUED"
        shard = shards_of(session, job_id)[1]
        shard.output_digest = None
        session.get_one(Job, shard.shard_job_id).state = "QUEUED"
    write(tmp_path / "in.parquet", {"input": packed(x[::-1])})
    engine.execute(job_id)
    assert job_of(sqlite_database, job_id).error["code"] == "input_changed"


def test_a_failed_job_tried_again_computes_only_what_is_missing(
    sqlite_database: Database, blobs: BlobStore, tmp_path: Path, x: np.ndarray
) -> None:
    release = ready_release(sqlite_database, blobs)
    source = write(tmp_path / "in.parquet", {"input": packed(x)})
    job_id = submit(
        sqlite_database, release_id=release.id, input=source, output=str(tmp_path / "out.parquet"), shard_rows=250
    )
    engine = engine_of(sqlite_database, blobs)
    engine.execute(job_id)
    with sqlite_database.transaction() as session:
        session.get_one(Job, job_id).state = "FAILED"
        shard = shards_of(session, job_id)[2]
        shard.output_digest = None
        session.get_one(Job, shard.shard_job_id).state = "FAILED"
        jobs.retry(session, job_id, kinds=engine.kinds, now=utc_now())
    engine.execute(job_id)
    assert job_of(sqlite_database, job_id).state == "SUCCEEDED"
    with sqlite_database.read() as session:
        assert len(jobs.list_jobs(session, parent_id=job_id)) == 5
    assert pq.read_table(tmp_path / "out.parquet")["row_index"].to_pylist() == list(range(ROWS))


def test_a_canceled_job_writes_nothing_and_stops_its_shards(
    database: Database, blobs: BlobStore, tmp_path: Path, x: np.ndarray
) -> None:
    release = ready_release(database, blobs)
    source = write(tmp_path / "in.parquet", {"input": packed(x)})
    job_id = submit(database, release_id=release.id, input=source, output=str(tmp_path / "out.parquet"))
    with database.transaction() as session:
        jobs.cancel(session, job_id, now=utc_now())
    engine = engine_of(database, blobs)
    assert engine.execute(job_id) is None
    engine.reconcile()
    assert job_of(database, job_id).state == "CANCELED"
    assert not (tmp_path / "out.parquet").exists()


def test_what_cannot_be_scored_is_refused_at_once(database: Database, blobs: BlobStore) -> None:
    release = ready_release(database, blobs)
    run_id = finished_run(database, blobs, "student")
    with database.transaction() as session:
        spec = ReleaseSpec(name="unbuilt", recipe="tiny", student_run=run_id)
        registry.create_release(session, spec, now=utc_now(), actor="test")

    def code(**spec: object) -> str:
        with pytest.raises((NotFound, Conflict, InvalidInput)) as error:
            submit(database, **{"release_id": release.id, "input": "a", "output": "b", **spec})
        return error.value.code

    assert code(release_id="nobody") == "release_not_found"
    assert code(release_id="unbuilt") == "release_not_ready"
    assert code(variant="student_int2") == "variant_not_found"
    assert code(output="a") == "invalid_batch_spec"
    assert code(input="") == "invalid_batch_spec"
    assert code(batch_size=0) == "invalid_batch_spec"


def test_a_worker_opens_no_file_outside_its_data_folder_whoever_wrote_the_job(
    sqlite_database: Database, blobs: BlobStore, tmp_path: Path, x: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    release = ready_release(sqlite_database, blobs)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    source = write(elsewhere / "in.parquet", {"input": packed(x)})
    job_id = submit(sqlite_database, release_id=release.id, input=source, output=str(elsewhere / "out.parquet"))
    engine_of(sqlite_database, blobs).execute(job_id)
    assert job_of(sqlite_database, job_id).error["code"] == "path_not_allowed"
    assert [path.name for path in elsewhere.iterdir()] == ["in.parquet"]
