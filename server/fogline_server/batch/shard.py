"""One shard: read its rows, score them, store one Arrow blob. A job's body."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy.orm import Session

from fogline_server.batch.layout import examples_of, layout_of
from fogline_server.batch.model import BatchSpec
from fogline_server.batch.places import Places
from fogline_server.batch.reader import reader_of
from fogline_server.batch.scoring import scorer_of
from fogline_server.batch.tables import Shard
from fogline_server.db.base import utc_now
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.jobs.tables import Job


def run_shard(ctx: JobContext, places: Places) -> Outcome:
    """Score the rows of one shard. Running it twice gives the same blob; committing it twice is impossible."""
    parent_id, number = str(ctx.spec["batch_job_id"]), int(ctx.spec["number"])
    with ctx.db.read() as session:
        parent = dict(session.get_one(Job, parent_id).spec)
        shard = session.get_one(Shard, (parent_id, number))
    digest = _score_rows(ctx, places, parent, shard.first_row, shard.rows)

    def commit(session: Session) -> None:
        row = session.get_one(Shard, (parent_id, number))
        row.output_digest, row.finished_at = digest, utc_now()

    return Outcome(result={"rows": shard.rows, "digest": digest}, commit=commit)


def _score_rows(ctx: JobContext, places: Places, parent: dict[str, Any], first_row: int, rows: int) -> str:
    spec = BatchSpec.from_json(parent)
    scorer = scorer_of(ctx.blobs, parent["digest"])
    reader = reader_of(places.opened(spec.input), fingerprint=ctx.spec["fingerprint"])
    layout = layout_of(reader.schema, scorer.manifest, id_column=spec.id_column)
    schema = output_schema(reader.schema, spec.id_column)
    buffer, done = io.BytesIO(), 0
    with pa.ipc.new_stream(buffer, schema) as sink:
        for batch in reader.read(first_row, rows, layout.columns, row_bytes=4 * layout.width):
            at = first_row + done
            labels, scores = scorer.score(examples_of(batch, layout, first_row=at), spec.batch_size)
            columns = [pa.array(np.arange(at, at + len(batch))), labels, scores]
            if spec.id_column:
                columns.append(batch.column(spec.id_column))
            sink.write_batch(pa.record_batch(columns, schema=schema))
            done += len(batch)
            ctx.lease.progress(done, rows)
    return ctx.blobs.put([buffer.getbuffer()]).digest


def output_schema(source: Any, id_column: str) -> Any:
    """``row_index`` int64, ``label`` string, ``score`` float32, and the copied column under its own name."""
    fields = [pa.field("row_index", pa.int64()), pa.field("label", pa.string()), pa.field("score", pa.float32())]
    if id_column:
        fields.append(pa.field(id_column, source.field(id_column).type))
    return pa.schema(fields)
