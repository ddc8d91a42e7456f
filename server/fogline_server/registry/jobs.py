"""The registry's kinds of jobs. The bodies import onnx, ONNX Runtime and torch, so they load when a job runs."""

from __future__ import annotations

from sqlalchemy.orm import Session

from fogline_server.jobs.runner import JobContext, JobKind, Outcome
from fogline_server.jobs.tables import Job
from fogline_server.registry.deltas import service as deltas
from fogline_server.registry.service import QUEUE
from fogline_server.registry.tables import Release
from fogline_server.registry.tick import fail, give_up_variant
from fogline_shared.errors import FoglineError


def _quantize(ctx: JobContext) -> Outcome:
    from fogline_server.registry.build import quantize

    return quantize(ctx)


def _evaluate(ctx: JobContext) -> Outcome:
    from fogline_server.registry.measure import evaluate_variant

    return evaluate_variant(ctx)


def _import_model(ctx: JobContext) -> Outcome:
    from fogline_server.registry.importing import import_model

    return import_model(ctx)


def _build_deltas(ctx: JobContext) -> Outcome:
    from fogline_server.registry.deltas.job import build_deltas

    return build_deltas(ctx)


def _release_failed(session: Session, job_id: str, error: FoglineError) -> None:
    job = session.get_one(Job, job_id)
    fail(session, session.get_one(Release, job.spec["release_id"]), error)


def _variant_failed(session: Session, job_id: str, error: FoglineError) -> None:
    job = session.get_one(Job, job_id)
    give_up_variant(session, job.spec["release_id"], job.spec["variant"], error)


_BUILDING = tuple(
    JobKind(
        name=name,
        queue=QUEUE,
        run=run,
        on_failure=failed,
        instead_of_retry="its release goes on without what failed, or has FAILED; create it again under another name",
    )
    for name, run, failed in (
        ("quantize", _quantize, _release_failed),
        ("evaluate", _evaluate, _variant_failed),
        ("import_model", _import_model, _release_failed),
    )
)
# Without deltas a release is as good, only dearer to send.
KINDS = (*_BUILDING, JobKind(name=deltas.KIND, queue=QUEUE, run=_build_deltas))
