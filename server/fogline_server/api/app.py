"""The coordinator's HTTP application: the admin REST API under /v1, health and metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.concurrency import run_in_threadpool

import fogline_shared
from fogline_server.access.files import open_key_ring
from fogline_server.access.first_start import ensure_admin_key
from fogline_server.api import health, idempotent, metrics, problems
from fogline_server.api.auth import authorise
from fogline_server.api.limits import MAX_ARTIFACT_BYTES, BodyLimit
from fogline_server.api.problems import Problem, responses
from fogline_server.api.routers import (
    aliases,
    api_keys,
    devices,
    enrollment_tokens,
    events,
    jobs,
    measurements,
    notes,
    picks,
    populations,
    recipes,
    releases,
    rollouts,
    runs,
    schedules,
    searches,
    storage,
    telemetry,
    trust,
    unlisting,
)
from fogline_server.api.services import Services
from fogline_server.db.base import utc_now

ROUTERS = (
    devices.router,
    enrollment_tokens.router,
    runs.router,
    populations.router,
    releases.router,
    releases.uploads,
    aliases.router,
    picks.router,
    searches.router,
    notes.router,
    measurements.router,
    unlisting.router,
    rollouts.router,
    jobs.router,
    schedules.router,
    telemetry.router,
    trust.router,
    recipes.router,
    events.router,
    storage.router,
    api_keys.router,
)


def create_app(services: Services) -> FastAPI:
    """The application over ``services``. Starting it makes the first admin key; nothing else happens by itself."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(prepare, app)
        yield

    app = FastAPI(
        title="Fogline",
        version=fogline_shared.__version__,
        summary="Federated edge-cloud orchestration.",
        lifespan=lifespan,
        # Swagger's pages load scripts from elsewhere; the document itself is enough.
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,
        # A path has one spelling. A redirect would also drop the API key of a careful client.
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.key_ring = open_key_ring(services.settings.key_dir, services.settings.secret.get_secret_value())
    app.add_middleware(BodyLimit, larger={"/v1/releases:import": MAX_ARTIFACT_BYTES})
    problems.install(app)
    app.include_router(health.router)
    app.include_router(metrics.router)
    app.include_router(_v1())
    _describe(app)
    return app


def prepare(app: FastAPI) -> None:
    """What must be true before the first request: somebody can come in. Safe to repeat."""
    services: Services = app.state.services
    ensure_admin_key(
        services.db,
        app.state.key_ring,
        key_dir=services.settings.key_dir,
        configured=services.settings.bootstrap_api_key.get_secret_value(),
        now=utc_now(),
    )


def _v1() -> APIRouter:
    v1 = APIRouter(prefix="/v1", dependencies=[Depends(authorise)], responses=responses(401, 503))
    for router in ROUTERS:
        v1.include_router(router)
    return v1


def _refusals(method: str, operation: dict[str, Any]) -> dict[str, Any]:
    """The problems an operation may answer with because of its form; what it does itself is declared at its route."""
    parameters = operation.get("parameters", ())
    body = operation.get("requestBody", {}).get("content", {})
    statuses = {403} if method != "get" else set()
    if "application/json" in body:
        statuses |= {400, 422}
    if parameters:
        statuses.add(422)
    if body or any(each["name"] == idempotent.HEADER for each in parameters):
        statuses.add(413)
    return {str(status): answer for status, answer in responses(*sorted(statuses)).items()}


def _describe(app: FastAPI) -> None:
    """Say in the OpenAPI document which problems each operation has, in place of FastAPI's own error schema."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        schemas = document["components"]["schemas"]
        if "Problem" not in schemas:
            problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update(problem.pop("$defs"))
            schemas["Problem"] = problem
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
            for path, operations in document["paths"].items():
                for method, operation in operations.items() if path.startswith("/v1/") else ():
                    operation["responses"] |= _refusals(method, operation)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
