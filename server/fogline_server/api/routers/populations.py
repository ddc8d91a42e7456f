"""/v1/populations: groups of devices with a budget of differential privacy."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import Field

from fogline_server.api import schemas
from fogline_server.api.auth import Caller
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.pagination import page_of
from fogline_server.api.problems import responses
from fogline_server.api.schemas import Cursor, Id, Limit, Page, PathId, Resource, Tags
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.training.privacy import ledger

router = APIRouter(prefix="/populations", tags=["populations"], route_class=IdempotentRoute)


class NewPopulation(schemas.Request):
    """The devices with the recipe and all of the tags, and what may be told of each: (ε, δ) over all runs."""

    name: Id
    recipe: Id
    tags: Tags = Field(default_factory=list)
    epsilon: float
    delta: float = 1e-5


class PopulationView(Resource):
    """``spent``: ε of the rounds released so far; ``committed``: with what open runs have reserved."""

    name: str
    recipe: str
    tags: list[str]
    epsilon: float
    delta: float
    spent: float
    committed: float
    created_at: datetime


@router.get("")
def list_populations(services: Parts, cursor: Cursor = None, limit: Limit = 50) -> Page[PopulationView]:
    """Populations, by name."""
    with services.db.read() as session:
        rows = ledger.list_all(session, after=cursor, limit=limit + 1)
        return page_of(rows, limit, cursor=lambda row: row.name, show=PopulationView.model_validate)


@router.post("", status_code=201, responses=responses(409), dependencies=[IDEMPOTENT])
def create_population(services: Parts, who: Caller, body: NewPopulation) -> PopulationView:
    """Give a group of devices a budget; from now on no run uses their data but at its cost."""
    with services.db.transaction() as session:
        row = ledger.create(session, **body.model_dump(), now=utc_now(), actor=who.actor)
        return PopulationView.model_validate(row)


@router.get("/{population:id}", responses=responses(404))
def get_population(services: Parts, population: PathId) -> PopulationView:
    """One population."""
    with services.db.read() as session:
        return PopulationView.model_validate(ledger.get(session, population))
