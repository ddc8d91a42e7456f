"""Use cases of offline batch inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from fogline_server.batch.model import BatchSpec
from fogline_server.batch.places import Places
from fogline_server.batch.tables import Shard
from fogline_server.db import events
from fogline_server.jobs import service as jobs
from fogline_server.jobs.tables import Job
from fogline_server.registry.service import get_variant, ready_release

QUEUE = "compute"


def submit_batch(session: Session, spec: BatchSpec, *, places: Places, now: datetime, actor: str) -> Job:
    """A ``batch`` job. The release and variant are fixed now, so that a moved alias does not change a running job.

    Raises NotFound ``release_not_found``, ``variant_not_found``; Conflict ``release_not_ready``; InvalidInput
    ``path_not_allowed``. The input is first opened by the worker: an unreadable one fails the job.
    """
    spec = replace(spec, input=places.named(spec.input), output=places.named(spec.output))
    release = ready_release(session, spec.release_id)
    variant = get_variant(session, release.id, spec.variant or release.default_variant)
    fixed = replace(spec, release_id=release.id, variant=variant.name)
    body = {**fixed.as_json(), "digest": variant.digest}
    job = jobs.submit(session, "batch", body, queue=QUEUE, now=now, actor=actor)
    events.record(session, "batch.submitted", "job", job.id, actor=actor, release_id=release.id, input=spec.input)
    return job


def shards_of(session: Session, job_id: str) -> Sequence[Shard]:
    """The shards of a batch job in order; none before it is planned."""
    return session.scalars(select(Shard).where(Shard.job_id == job_id).order_by(Shard.number)).all()
