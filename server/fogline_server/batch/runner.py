"""A batch job: plan the shards, help to compute them, merge. A job's body.

It may be killed anywhere: shards and their jobs are planned in one transaction, a finished shard is never computed
again, and the output appears by one rename.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.batch.layout import Layout, examples_of, layout_of
from fogline_server.batch.model import BatchSpec, plan_shards
from fogline_server.batch.output import Output, Piece
from fogline_server.batch.places import Places
from fogline_server.batch.reader import RowReader, reader_of
from fogline_server.batch.scoring import Scorer, scorer_of
from fogline_server.batch.service import QUEUE, shards_of
from fogline_server.batch.shard import output_schema
from fogline_server.batch.tables import Shard
from fogline_server.db.base import utc_now
from fogline_server.jobs import service as jobs
from fogline_server.jobs.runner import JobContext, Outcome
from fogline_server.jobs.tables import Job
from fogline_shared.errors import InvalidInput
from fogline_shared.states import JobState

# Seconds of work in a shard: enough that its bookkeeping vanishes, little enough that a killed worker loses little.
MIN_SHARD_S, MAX_SHARD_S, SPREAD = 1.0, 10.0, 16
MAX_SHARDS = 5000
MIN_SAMPLE = 256
POLL_S = 0.1


def run_batch(ctx: JobContext, places: Places) -> Outcome:
    """Plan or continue, then merge; the result holds ``rows``, ``shards``, ``rows_without_label``, ``seconds``."""
    started = time.monotonic()
    spec = BatchSpec.from_json(ctx.spec)
    scorer = scorer_of(ctx.blobs, ctx.spec["digest"])
    reader = reader_of(places.opened(spec.input))
    layout = layout_of(reader.schema, scorer.manifest, id_column=spec.id_column)
    output = Output(places.opened(spec.output), mark=f"{ctx.job_id}.{ctx.lease.epoch}")
    output.check()
    _plan(ctx, spec, reader, layout, scorer)
    shards = _compute(ctx, reader.rows)
    pieces = [Piece(digest=str(s.output_digest), first_row=s.first_row, rows=s.rows) for s in shards]
    ctx.lease.progress(reader.rows, reader.rows, "writing the output")
    empty = output.write(
        pieces, ctx.blobs, output_schema(reader.schema, spec.id_column), before_publish=lambda: _still_ours(ctx)
    )
    return Outcome(
        result={
            "rows": reader.rows,
            "shards": len(shards),
            "rows_without_label": empty,
            "output": spec.output,
            "seconds": round(time.monotonic() - started, 3),
        }
    )


def _still_ours(ctx: JobContext) -> None:
    with ctx.db.transaction() as session:
        ctx.lease.check(session)


def _plan(ctx: JobContext, spec: BatchSpec, reader: RowReader, layout: Layout, scorer: Scorer) -> None:
    with ctx.db.read() as session:
        planned = bool(shards_of(session, ctx.job_id))
    if planned:
        _revive(ctx, reader)
        return
    size = spec.shard_rows or _measured_shard_rows(spec, reader, layout, scorer)
    slices = plan_shards(reader.rows, max(size, math.ceil(reader.rows / MAX_SHARDS)))
    with ctx.db.transaction() as session:
        ctx.lease.check(session)
        for number, piece in enumerate(slices):
            job = _submit_shard(session, ctx, number, piece.rows, reader.fingerprint, f"{ctx.job_id}:{number}")
            session.add(
                Shard(
                    job_id=ctx.job_id,
                    number=number,
                    shard_job_id=job.id,
                    first_row=piece.first_row,
                    rows=piece.rows,
                    output_digest=None,
                    finished_at=None,
                )
            )


def _submit_shard(session: Session, ctx: JobContext, number: int, rows: int, fingerprint: str, dedupe_key: str) -> Job:
    spec = {"batch_job_id": ctx.job_id, "number": number, "fingerprint": fingerprint}
    return jobs.submit(
        session,
        "batch_shard",
        spec,
        queue=QUEUE,
        now=utc_now(),
        dedupe_key=dedupe_key,
        parent_id=ctx.job_id,
        total=rows,
    )


def _revive(ctx: JobContext, reader: RowReader) -> None:
    """A job that is tried again takes its failed shards with it; the finished ones stay."""
    with ctx.db.transaction() as session:
        ctx.lease.check(session)
        for shard in shards_of(session, ctx.job_id):
            job = session.get_one(Job, shard.shard_job_id)
            if shard.output_digest is None and job.state in (JobState.FAILED, JobState.CANCELED):
                key = f"{ctx.job_id}:{shard.number}:{ctx.lease.epoch}"
                shard.shard_job_id = _submit_shard(session, ctx, shard.number, shard.rows, reader.fingerprint, key).id


def _measured_shard_rows(spec: BatchSpec, reader: RowReader, layout: Layout, scorer: Scorer) -> int:
    """Rows of a sixteenth of the work, within 1 to 10 seconds, from timing some rows after as many to warm up."""
    sample = max(MIN_SAMPLE, 4 * spec.batch_size)
    if reader.rows <= 2 * sample:
        return max(1, reader.rows)
    for first in (0, sample):
        begin = time.perf_counter()
        for batch in reader.read(first, sample, layout.columns, row_bytes=4 * layout.width):
            scorer.score(examples_of(batch, layout, first_row=first), spec.batch_size)
    per_row = (time.perf_counter() - begin) / sample
    seconds = min(MAX_SHARD_S, max(MIN_SHARD_S, per_row * reader.rows / SPREAD))
    return max(sample, int(seconds / per_row))


@dataclass(frozen=True, kw_only=True)
class _Standing:
    shards: Sequence[Shard]
    jobs: Sequence[Job]

    @property
    def rows_done(self) -> int:
        return sum(
            shard.rows if shard.output_digest else min(job.done, shard.rows)
            for shard, job in zip(self.shards, self.jobs, strict=True)
        )

    @property
    def finished(self) -> bool:
        return all(shard.output_digest for shard in self.shards)

    def first(self, *states: JobState) -> Job | None:
        return next((job for job in self.jobs if job.state in states), None)


def _compute(ctx: JobContext, rows: int) -> Sequence[Shard]:
    """Run free shards here, wait for those that others run; return when all are finished."""
    started, before = time.monotonic(), None
    while True:
        standing = _look(ctx)
        done = standing.rows_done
        before = done if before is None else before
        ctx.lease.progress(done, rows, _message(standing, done - before, rows - done, time.monotonic() - started))
        if standing.finished:
            return standing.shards
        failed = standing.first(JobState.FAILED, JobState.CANCELED)
        if failed is not None:
            error = failed.error or {"code": "shard_canceled", "message": "it was canceled"}
            raise InvalidInput(error["code"], f"shard {failed.spec['number']}: {error['message']}")
        free = standing.first(JobState.QUEUED)
        # None: somebody else was faster; QUEUED: it failed here and will be tried again.
        if free is None or ctx.execute(free.id) in (None, JobState.QUEUED):
            time.sleep(POLL_S)


def _look(ctx: JobContext) -> _Standing:
    with ctx.db.read() as session:
        query = (
            select(Shard, Job)
            .join(Job, Job.id == Shard.shard_job_id)
            .where(Shard.job_id == ctx.job_id)
            .order_by(Shard.number)
        )
        pairs = session.execute(query).all()
    return _Standing(shards=[shard for shard, _ in pairs], jobs=[job for _, job in pairs])


def _message(standing: _Standing, gained: int, left: int, seconds: float) -> str:
    finished = sum(1 for shard in standing.shards if shard.output_digest)
    text = f"{finished} of {len(standing.shards)} shards"
    return f"{text}, about {math.ceil(left * seconds / gained)} s left" if gained and left else text
