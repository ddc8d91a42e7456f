"""/v1/releases: model versions, their variants and artifacts."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from typing import Annotated, Any

from anyio import from_thread, to_thread
from fastapi import APIRouter, HTTPException, Query, Request
from fastapi.responses import FileResponse
from pydantic import Field
from sqlalchemy.orm import Session

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.limits import MAX_ARTIFACT_BYTES
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.routers.notes import NoteView
from fogline_server.api.schemas import ID_PATTERN, Cursor, Id, Limit, Page, PathId, Resource
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.registry import left_out, service
from fogline_server.registry.deltas import service as deltas
from fogline_server.registry.model import STUDENT_INT8, ReleaseSpec
from fogline_server.registry.notes import notes_of
from fogline_server.registry.tables import Release
from fogline_shared.delta import NOTHING
from fogline_shared.states import ReleaseState

_BYTES = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

# ``:import`` streams its body, which a stored answer could not be compared with: it has no Idempotency-Key.
uploads = APIRouter(prefix="/releases", tags=["releases"])
router = APIRouter(tags=["releases"], route_class=IdempotentRoute)


class MethodLink(schemas.Request):
    """One method of a chain, with the options that are not its defaults."""

    method: Id
    options: dict[str, bool | int | float | str] = Field(default_factory=dict, max_length=20)


class TeachingSettings(schemas.Request):
    """How the student is taught; what is left out has its default (docs/distillation.md)."""

    steps: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    temperature: float | None = None
    mixup: float | None = None
    hint: float | None = None
    seeds: int | None = None
    trials: int | None = None
    patience: int | None = None


class NewRelease(schemas.Request):
    """``student_run`` is the control, trained without a teacher; ``distilled_run`` replaces it if better by more than chance.

    ``chains``: further variants of the student, each by its name and the compression methods that make it, in order.
    ``teaching``: have the student taught at the cloud, by ``teacher_run``, by ``teacher_releases``, or by all of them.
    ``limits``: what int8 and every chain must keep beside accuracy (docs/compression.md); the recipe's hold where none is given.
    """

    name: Id
    recipe: Id
    student_run: Id
    teacher_run: Id | None = None
    distilled_run: Id | None = None
    default_variant: Id = STUDENT_INT8
    max_accuracy_drop: float = 0.02
    chains: dict[Id, list[MethodLink]] = Field(default_factory=dict)
    teaching: TeachingSettings | None = None
    teacher_releases: list[Id] = Field(default_factory=list, max_length=8)
    limits: dict[Id, float] = Field(default_factory=dict, max_length=20)


class VariantView(Resource):
    name: str
    digest: str
    size: int
    metrics: dict[str, Any] | None


class ReleaseSummary(Resource):
    id: str
    name: str
    recipe: str
    state: ReleaseState
    default_variant: str
    error: dict[str, Any] | None
    created_at: datetime
    sealed_at: datetime | None


class LeftOutView(Resource):
    """A variant that the release was built without: which gate it failed, or what its chain raised. No device gets it."""

    name: str
    code: str
    message: str
    digest: str | None
    size: int | None
    metrics: dict[str, Any] | None


class ReleaseView(ReleaseSummary):
    """``lineage``: where it comes from, hash-chained; ``report``: what was compared and chosen."""

    lineage: dict[str, Any]
    report: dict[str, Any]
    variants: list[VariantView] = Field(default_factory=list)
    left_out: list[LeftOutView] = Field(default_factory=list)
    aliases: list[str] = Field(default_factory=list)
    notes: list[NoteView] = Field(default_factory=list)


class Variants(Resource):
    items: list[VariantView]


class DeltaView(Resource):
    """How devices are brought to a variant from ``base``; null: the artifact compressed. Sizes in bytes."""

    variant: str
    base_digest: str | None
    base_release: str | None
    digest: str
    size: int
    target_digest: str
    target_size: int
    created_at: datetime


class Deltas(Resource):
    items: list[DeltaView]


class ProblemView(Resource):
    code: str
    subject: str
    message: str


class VerificationView(Resource):
    """The answer of a verification. ``ok``: every byte is what the sealed release says."""

    release_id: str
    ok: bool
    blobs_checked: int
    bytes_checked: int
    problems: list[ProblemView]


def _show(session: Session, release: Release) -> ReleaseView:
    summary = ReleaseSummary.model_validate(release).model_dump()
    return ReleaseView(
        **summary,
        lineage=release.lineage,
        report=release.report,
        variants=[VariantView.model_validate(v) for v in service.variants_of(session, release.id)],
        left_out=[LeftOutView.model_validate(each) for each in left_out.of_release(release)],
        aliases=[alias.name for alias in service.list_aliases(session, release.id)],
        notes=[NoteView.model_validate(note) for note in notes_of(session, release.id)],
    )


@router.get("/releases")
def list_releases(
    services: Parts, state: ReleaseState | None = None, cursor: Cursor = None, limit: Limit = 50
) -> Page[ReleaseSummary]:
    """Releases, newest first."""
    with services.db.read() as session:
        rows = service.list_releases(session, state=state, after=cursor, limit=limit + 1)
        return page_of(rows, limit, cursor=lambda row: row.id, show=ReleaseSummary.model_validate)


@router.post("/releases", status_code=201, responses=responses(404, 409), dependencies=[IDEMPOTENT])
def create_release(services: Parts, who: Caller, body: NewRelease) -> ReleaseView:
    """Build a release from finished runs: export, quantize, measure, seal."""
    with services.db.transaction() as session:
        spec = ReleaseSpec(**body.model_dump(exclude_none=True))
        return _show(session, service.create_release(session, spec, now=utc_now(), actor=who.actor))


@uploads.post(
    ":import",
    status_code=201,
    responses=responses(404, 409, 507),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": _BYTES,
        }
    },
)
async def import_release(
    request: Request,
    services: Parts,
    who: Caller,
    name: Annotated[str, Query(pattern=ID_PATTERN)],
    like: Annotated[str | None, Query(pattern=ID_PATTERN, description="release to take the manifest from")] = None,
) -> ReleaseView:
    """Make a release of one variant from an ONNX file, the request's body. A job inspects it before it is READY."""
    body = request.stream()

    def take() -> ReleaseView:
        blob = services.blobs.put(_pulled(body), limit=MAX_ARTIFACT_BYTES)
        with services.db.transaction() as session:
            release = service.import_release(
                session,
                services.blobs,
                name=name,
                digest=blob.digest,
                like_release_id=like,
                now=utc_now(),
                actor=who.actor,
            )
            return _show(session, release)

    return await to_thread.run_sync(take)


def _pulled(stream: AsyncIterator[bytes]) -> Iterator[bytes]:
    """The pieces of an async stream, pulled from a worker thread."""

    async def pull() -> bytes | None:
        return await anext(stream, None)

    while (piece := from_thread.run(pull)) is not None:
        yield piece


@router.get("/releases/{release:id}", responses=responses(404))
def get_release(services: Parts, release: PathId) -> ReleaseView:
    """One release, by id, name or alias."""
    with services.db.read() as session:
        return _show(session, service.get_release(session, release))


@router.get("/releases/{release:id}/variants", responses=responses(404))
def list_variants(services: Parts, release: PathId) -> Variants:
    """The variants that exist so far."""
    with services.db.read() as session:
        rows = service.variants_of(session, service.get_release(session, release).id)
        return Variants(items=[VariantView.model_validate(row) for row in rows])


@router.get("/releases/{release:id}/variants/{variant:id}", responses=responses(404))
def get_variant(services: Parts, release: PathId, variant: PathId) -> VariantView:
    """One variant and what was measured of it."""
    with services.db.read() as session:
        row = service.get_variant(session, service.get_release(session, release).id, variant)
        return VariantView.model_validate(row)


@router.get("/releases/{release:id}/deltas", responses=responses(404))
def list_deltas(services: Parts, release: PathId) -> Deltas:
    """The deltas that lead to the release's variants. A job builds them once the release is READY."""
    with services.db.read() as session:
        found = deltas.of_release(session, service.get_release(session, release).id)
        names = deltas.names_of(session, [delta.base_digest for _, delta in found])
        return Deltas(
            items=[
                DeltaView(
                    variant=variant.name,
                    base_digest=None if delta.base_digest == NOTHING else delta.base_digest,
                    base_release=names.get(delta.base_digest),
                    digest=delta.digest,
                    size=delta.size,
                    target_digest=delta.target_digest,
                    target_size=delta.target_size,
                    created_at=delta.created_at,
                )
                for variant, delta in found
            ]
        )


@router.get(
    "/releases/{release:id}/variants/{variant:id}/artifact",
    response_class=FileResponse,
    responses={
        200: {"content": _BYTES},
        206: {"content": _BYTES, "description": "the range that was asked for"},
        **responses(404, 416),
    },
)
def download_artifact(request: Request, services: Parts, release: PathId, variant: PathId) -> FileResponse:
    """The ONNX file, or one ``Range`` of it. Its ETag is its SHA-256."""
    with services.db.read() as session:
        row = service.get_variant(session, service.get_release(session, release).id, variant)
    _check_range(request, row.size)
    return FileResponse(
        services.blobs.path(row.digest),
        media_type="application/octet-stream",
        filename=f"{release}-{variant}.onnx",
        headers={"ETag": f'"{row.digest}"'},
    )


def _check_range(request: Request, size: int) -> None:
    """Let one plain range through, refuse one behind the end, and ignore any other, as RFC 9110 allows."""
    asked = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", request.headers.get("range", ""))
    first, last = asked.groups() if asked else ("", "")
    if (first and int(first) >= size) or (not first and last and not int(last)):
        raise HTTPException(416, f"the artifact has {size} bytes", {"Content-Range": f"bytes */{size}"})
    if not (first or last) or (first and last and int(last) < int(first)):
        request.scope["headers"] = [item for item in request.scope["headers"] if item[0] != b"range"]


@router.post("/releases/{release:id}:verify", responses=responses(404, 409), dependencies=[IDEMPOTENT])
def verify_release(services: Parts, release: PathId) -> VerificationView:
    """Hash every byte of a READY release again. Problems are in the answer."""
    with services.db.read() as session:
        return VerificationView.model_validate(service.verify(session, services.blobs, release))
