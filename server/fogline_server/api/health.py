"""Is the process alive, and can it serve? For probes: no key needed, nothing told."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from fogline_server.api.problems import responses
from fogline_server.api.services import Parts
from fogline_shared.errors import Unavailable

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/healthz")
def is_alive() -> Health:
    """The process answers."""
    return Health()


@router.get("/readyz", responses=responses(503))
def is_ready(services: Parts) -> Health:
    """The database answers. Redis is not asked: without it everything is slower and nothing is lost."""
    try:
        with services.db.read() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError as error:
        raise Unavailable("database_unavailable", "the database does not answer") from error
    return Health()
