"""/v1/trust: what devices may install, by whose keys, until when."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from pydantic import Field

from fogline_server.api import schemas
from fogline_server.api.auth import Caller, administer
from fogline_server.api.idempotent import IDEMPOTENT, IdempotentRoute
from fogline_server.api.problems import responses
from fogline_server.api.schemas import Resource
from fogline_server.api.services import Parts
from fogline_server.db.base import utc_now
from fogline_server.trust import service
from fogline_server.trust.development import throwaway_keys

router = APIRouter(prefix="/trust", tags=["trust"], route_class=IdempotentRoute)


class KeyView(Resource):
    name: str
    keyid: str


class RootView(Resource):
    """Offline keys: ``threshold`` of ``keys`` sign a root, one of ``targets_keys`` the top-level targets."""

    threshold: int
    keys: list[KeyView]
    targets_keys: list[KeyView]


class RoleView(Resource):
    """The newest metadata of a role. ``targets``: how many artifacts it lists."""

    version: int
    expires_at: datetime
    expired: bool
    targets: int | None = None


class OnlineKeyView(Resource):
    """The key this coordinator offers for a role. ``key``: its public part, as TUF writes it."""

    keyid: str
    key: dict[str, Any]
    in_use: bool


class TrustView(Resource):
    """``development``: enough root keys lie at the coordinator to sign a root; made without a ceremony."""

    set_up: bool
    development: bool
    root: RootView | None
    roles: dict[str, RoleView]
    online_keys: dict[str, OnlineKeyView]


class Documents(schemas.Request):
    """Root and targets as a ceremony has written them, each file's text.

    ``begin_anew``: forget the root that is trusted; every device must then enrol again.
    """

    documents: Annotated[list[str], Field(min_length=1, max_length=64)]
    begin_anew: bool = False


class Imported(Resource):
    """What was new: ``1.root``, say."""

    imported: list[str]


@router.get("")
def get_trust(services: Parts) -> TrustView:
    """The roles, their keys and the keys this coordinator offers to the next ceremony."""
    return _view(services)


@router.post(":import", responses=responses(409), dependencies=[IDEMPOTENT, Depends(administer)])
def import_trust(services: Parts, who: Caller, body: Documents) -> Imported:
    """Take root and targets that a ceremony has signed; everything online is then signed anew under them."""
    documents = [text.encode() for text in body.documents]
    with services.db.transaction() as session:
        facts = service.import_documents(
            session,
            services.online_keys,
            documents,
            begin_anew=body.begin_anew,
            now=utc_now(),
            actor=who.actor,
        )
        return Imported.model_validate(facts)


@router.post(":new-online-keys", responses=responses(409), dependencies=[IDEMPOTENT, Depends(administer)])
def make_online_keys(services: Parts, who: Caller) -> TrustView:
    """Make new online keys and offer them to the next ceremony; the present ones sign until its result is imported."""
    with services.db.transaction() as session:
        service.new_online_keys(session, services.online_keys, actor=who.actor)
    return _view(services)


def _view(services: Parts) -> TrustView:
    throwaway = throwaway_keys(services.online_keys.folder)
    with services.db.read() as session:
        return TrustView.model_validate(
            service.status(session, services.online_keys, throwaway=throwaway, now=utc_now())
        )
